"""What can go wrong with an object store, classified once for every caller.

Each error carries the address it concerns, the cause and the remedy, and never a credential, a presigned URL or
a server's raw answer (S3 echoes the access key and the string to sign in some of them).
"""


class ObjectStoreError(Exception):
    """An object store could not do what was asked. ``str()`` gives address, cause and remedy in one line."""

    def __init__(self, address: str, cause: str, remedy: str) -> None:
        super().__init__(address, cause, remedy)
        self.address = address
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.address}: {self.cause}. {self.remedy}"


class ObjectNotFound(ObjectStoreError):
    """No object has this key."""


class ObjectExists(ObjectStoreError):
    """A create-only write found an object under this key; nothing was changed."""


class StoreUnavailable(ObjectStoreError):
    """Transient: unreachable, timed out, overloaded or failing inside. The same call may succeed later."""


class StoreRefused(ObjectStoreError):
    """Permanent until a person changes something: permissions, a missing bucket, a full disk, a wrong address."""


class InvalidKey(StoreRefused):
    """The key (or a metadata name or value) is one that no store of ours accepts."""
