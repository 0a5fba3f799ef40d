"""Frames about who reads a topic. `gateway.presence` answers them."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gateway.frames.base import Frame, Seq

Topic = Annotated[str, msgspec.Meta(min_length=1, max_length=600)]


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reader of a topic: `client` is `<subject>:<client>`."""

    client: str
    role: str


class GetMembers(Frame, frozen=True, kw_only=True, tag="get_members"):
    """Who reads a topic that I read too. `watch`: tell me from now on who comes and goes; false ends that, and so does unsubscribing. Answered with Members."""

    seq: Seq
    topic: Topic
    watch: bool = False


class Members(Frame, frozen=True, kw_only=True, tag="members"):
    """`count` readers, over all gateways. `members`: who, for those who may know; `whole`: all of them are told."""

    seq: Seq
    topic: str
    count: int
    members: tuple[Member, ...] = ()
    whole: bool = False


class MembersChanged(Frame, frozen=True, kw_only=True, tag="members_changed"):
    """To who watches: how many read the topic now, and who came and went since the last word, for those who may know. `whole` false: not all could be told."""

    topic: str
    count: int
    joined: tuple[Member, ...] = ()
    left: tuple[Member, ...] = ()
    whole: bool = False
