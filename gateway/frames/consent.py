"""Frames of consent: whether a person has agreed that it is known where they are."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gateway.frames.base import Frame, Seq

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class GetConsent(Frame, frozen=True, kw_only=True, tag="get_consent"):
    """Answered with Consent."""

    seq: Seq


class GiveConsent(Frame, frozen=True, kw_only=True, tag="give_consent"):
    """I agree; `text`: the version of the text that I was shown. Answered with Consent."""

    seq: Seq
    text: Text


class WithdrawConsent(Frame, frozen=True, kw_only=True, tag="withdraw_consent"):
    """I take that back. Answered with Consent, when I am off every map."""

    seq: Seq


class Consent(Frame, frozen=True, kw_only=True, tag="consent"):
    """`asked`: whether this tenant asks its people at all; `given`: whether I have agreed, to which `text`."""

    seq: Seq
    asked: bool
    given: bool
    text: str = ""
