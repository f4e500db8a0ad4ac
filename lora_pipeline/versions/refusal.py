"""Why a file is not accepted as LoRA weights: one stable code for every reason, and one error that carries it.

What is checked, and where, belongs to the modules that raise it; what follows from a refusal (download again, hold
the training for a person) belongs to the operation that asked.
"""

from enum import StrEnum


class Refusal(StrEnum):
    """The reasons. The values are stored and shown: they never change their meaning."""

    TRUNCATED = "truncated"
    """Fewer bytes than the archive or the header announces."""
    ERROR_PAGE = "error_page"
    """HTML, XML or JSON where weights were expected."""
    DAMAGED_ARCHIVE = "damaged_archive"
    """It began as a tar or gzip archive and stopped being one."""
    NOT_AN_ARCHIVE = "not_an_archive"
    """Neither a tar, nor a gzipped tar, nor a .safetensors file."""
    UNSAFE_MEMBER = "unsafe_member"
    """A link, a device, or a name that leaves the folder."""
    NO_WEIGHTS = "no_weights"
    """An archive without a .safetensors file."""
    TWO_MEMBERS = "two_members"
    """An archive with more than one .safetensors file: which is the trained one cannot be known."""
    INCOMPLETE_MEMBER = "incomplete_member"
    """The archive arrived whole, but the file in it was packed incomplete."""
    TOO_LARGE = "too_large"
    """More bytes, members or header than the limits allow."""
    INVALID_HEADER = "invalid_header"
    """The bytes break the safetensors format."""
    NOT_A_LORA = "not_a_lora"
    """Valid safetensors, but without matching pairs of LoRA matrices."""
    NOT_FINITE = "not_finite"
    """A weight is NaN or infinite: the training diverged."""
    ARCHIVE_DIFFERS = "archive_differs"
    """Our own store gave back other bytes than were written."""


WORTH_RETRYING = frozenset(
    {Refusal.TRUNCATED, Refusal.ERROR_PAGE, Refusal.DAMAGED_ARCHIVE, Refusal.ARCHIVE_DIFFERS}
)
"""What a bad transfer can cause: the same address may deliver whole weights next time."""


class WeightsRefused(Exception):
    """The bytes cannot be accepted as LoRA weights. ``str()`` says what was got, what was expected, what to do."""

    def __init__(self, code: Refusal, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    @property
    def worth_retrying(self) -> bool:
        """Whether another download may succeed; otherwise the provider's file itself is wrong."""
        return self.code in WORTH_RETRYING

    def __str__(self) -> str:
        return self.message
