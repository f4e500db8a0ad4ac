"""Telling whoever is on call: a line into the chat that LORA_ALERT_URL posts to."""

from __future__ import annotations

import httpx

from lora_pipeline.settings import Settings

TIMEOUT_S = 5.0
"""For each of connecting and answering: far less than what a sensor's tick may take. The next tick tries again."""


class AlertNotTaken(Exception):
    """The chat took no alert. The message does not name its address, which is a secret."""


def alert(settings: Settings, text: str) -> bool:
    """Post `{"text": …}`, as Slack, Mattermost, Google Chat and Discord (`…/slack`) take it. False where no address is set.

    `text` names no person and no secret: chats are kept. Raises AlertNotTaken.
    """
    if settings.alert_url is None:
        return False
    try:
        # The answer's body says nothing that is needed, and may have no end.
        with httpx.stream(
            "POST",
            settings.alert_url.get_secret_value(),
            json={"text": text},
            timeout=TIMEOUT_S,
            follow_redirects=False,
        ) as answer:
            if answer.is_success:
                return True
            trouble = f"it answered {answer.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        trouble = f"no answer ({type(error).__name__})"
    raise AlertNotTaken(
        f"the address of LORA_ALERT_URL did not take an alert: {trouble}. The alert was: {text}"
    )
