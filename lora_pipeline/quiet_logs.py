"""Keeping what libraries would say of addresses and files out of every log, whatever the root logger's level is."""

from __future__ import annotations

import logging

_CHATTY = (
    # At INFO they name every address that is asked: a presigned one, a webhook's and a chat's are bearer secrets.
    "httpx",
    "httpcore",
    # At DEBUG they quote whole requests, with their signature and the session's token.
    "botocore",
    "boto3",
    "s3transfer",
    "urllib3",
    # At DEBUG it spells out a photograph's EXIF: who took it, and where.
    "PIL",
)


def keep_secrets_out_of_logs() -> None:
    """Leave these libraries their warnings. Whoever sets one of these loggers themselves has decided otherwise."""
    for name in _CHATTY:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
