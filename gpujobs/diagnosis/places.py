"""Can claims and records be kept where they are kept?"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from gpujobs.diagnosis.words import ADMINISTRATOR, count
from gpujobs.facts import ClaimsFacts, Facts, FolderFacts, IndexFacts, OtherBoardFacts, StateFacts
from gpujobs.findings import Finding, Topic
from gpujobs.units import format_duration, format_size

BOARD = Topic("board.folder", "claims are locks on files in this folder, which all users of the machine share")
SPACE = Topic("board.space", "without room on its disk no claim can be written, and nothing starts")
ARBITER = Topic("board.arbiter", "who decides holds this lock, for milliseconds; nothing starts in the meantime")
CLAIMS = Topic("board.claims", "a live claim that nobody can read stops everybody; a dead one only takes up a name")
OTHER = Topic(
    "board.other", "who claims on one board does not see what is claimed on another: one GPU can have two owners"
)
STATE = Topic("state.folder", "your runs, their logs and their index are kept here, and are nobody else's to change")
INDEX = Topic("state.index", "what is not in the database of your runs is neither shown, nor started, nor followed")
STATE_SPACE = Topic("state.space", "without room on its disk logs and receipts are lost")

ARBITER_LONG = 1.0  # seconds: a decision takes milliseconds
_LEAST_CLAIMS = 16 * 2**20  # bytes for some thousand claims
_LEAST_RECORDS = 2**30
_LEAST_INODES = 1000
_BETTER = f"{ADMINISTRATOR}`sudo install -d -m 1777 /var/lib/gpujobs/board`, while nothing is held or waits"
_LOCAL = "set GPUJOBS_BOARD_DIR, or board_dir in the site's settings, to a folder on a local disk"


def describe(folder: FolderFacts) -> str:
    """Path, owner, mode and file system."""
    mode = "unknown" if folder.mode is None else f"{folder.mode:o}"
    return f"{folder.path} (of {folder.owner or 'unknown'}, mode {mode}, {folder.filesystem or 'unknown file system'})"


# ---- the board ----------------------------------------------------------------------------------------------------


def board(folder: FolderFacts, facts: Facts) -> Iterator[Finding]:
    """Whether the protocol can hold on it."""
    yield _board(folder, facts)
    if not (folder.network or folder.pseudo):
        yield from _space(SPACE, folder, _LEAST_CLAIMS)


def _board(folder: FolderFacts, facts: Facts) -> Finding:
    if folder.network:
        return BOARD.problem(f"{folder.path} is on a network file system ({folder.filesystem})", _LOCAL)
    if folder.pseudo:
        return BOARD.problem(f"{folder.path} is on no disk ({folder.filesystem}): nobody can keep files there", _LOCAL)
    if not folder.is_folder:
        return BOARD.problem(f"{folder.path} is not a folder", f"remove it, or {_LOCAL}")
    if not folder.exists:
        return _to_be_made(folder, facts)
    if folder.mode is None or folder.writable is None:
        return BOARD.unknown(folder.errors.get("mode"))
    return _shared(folder, folder.mode, facts)


def _to_be_made(folder: FolderFacts, facts: Facts) -> Finding:
    if not folder.parent:
        return BOARD.problem(f"{folder.path} is not there, nor the folder above it", f"make that one, or {_LOCAL}")
    if folder.writable is False:
        return BOARD.problem(f"{folder.path} is not there, and {facts.user} cannot make it", _BETTER)
    return BOARD.ok(f"{folder.path} is not there yet: the first run makes it")


def _shared(folder: FolderFacts, mode: int, facts: Facts) -> Finding:
    if mode & 0o022 and not mode & stat.S_ISVTX:
        whose = "run" if folder.uid == facts.uid else f"have {folder.owner} run"
        return BOARD.problem(
            f"{describe(folder)} lets anybody delete the claims of others", f"{whose}: `chmod 1777 {folder.path}`"
        )
    if not folder.writable:
        return BOARD.problem(f"{describe(folder)} cannot be written by {facts.user}", f"{_BETTER}; or {_LOCAL}")
    if not mode & 0o022:
        return BOARD.note(f"{describe(folder)} is for one user: nobody else can take part", _BETTER)
    if folder.uid not in (0, None) and facts.scenario is None:
        return BOARD.note(f"{describe(folder)} belongs to an ordinary user, who could delete it", _BETTER)
    return BOARD.ok(describe(folder))


def _space(topic: Topic, folder: FolderFacts, least: int) -> Iterator[Finding]:
    if folder.free is None:
        yield topic.unknown(folder.errors.get("free"))
        return
    files = "" if folder.inodes is None else f" and {folder.inodes} files"
    found = f"room for {format_size(folder.free)}{files}"
    full = folder.free == 0 or folder.inodes == 0
    remedy = f"delete what is not needed on the disk of {folder.path}: `df -h {folder.path}; df -i {folder.path}`"
    if full:
        yield topic.problem(found, remedy)
    elif folder.free < least or (folder.inodes is not None and folder.inodes < _LEAST_INODES):
        yield topic.warning(found, remedy)
    else:
        yield topic.ok(found)


def claims(found: ClaimsFacts, facts: Facts) -> Iterator[Finding]:
    """What lies on the board, and whether decisions can be taken."""
    held = found.arbiter_held or 0.0
    if held >= ARBITER_LONG:
        yield ARBITER.warning(
            f"held for more than {format_duration(held)} by {found.arbiter_holder or 'somebody who cannot be seen'}",
            "if that process hangs, have its owner end it",
        )
    else:
        yield ARBITER.ok("free")
    for trouble in found.troubles:
        remedy = "have the owner of the file end the process that holds it (`lslocks` shows who does)"
        yield CLAIMS.problem(trouble, remedy) if found.stuck else CLAIMS.warning(trouble, remedy)
    if found.dead_mine:
        yield CLAIMS.note(
            f"{count(found.dead_mine, 'dead claim')} of yours", "nothing: the next `gpujobs status` or run removes it"
        )
    if found.dead_others:
        yield CLAIMS.note(f"{count(found.dead_others, 'dead claim')} of others, which count for nothing")
    if not found.troubles:
        yield CLAIMS.ok(f"{count(found.leases, 'lease')}, {count(found.tickets, 'ticket')}")


def other(found: OtherBoardFacts, facts: Facts) -> Iterator[Finding]:
    """Whether claims live on the board that is used where no other is set or made."""
    if not found.claims:
        yield OTHER.ok("this is the common one" if found.same else f"nothing is claimed on {found.path}")
        return
    people = ", ".join(found.users)
    yield OTHER.problem(
        f"{count(found.claims, 'claim')} of {people} on {found.path}, but the board in use here is {found.ours}",
        f"start nothing until they have ended; `GPUJOBS_BOARD_DIR={found.path} gpujobs status` shows them. "
        "A board is changed for everybody at once, and only while nothing is held or waits",
    )


# ---- the records --------------------------------------------------------------------------------------------------


def state(found: StateFacts, facts: Facts) -> Iterator[Finding]:
    """Whether the user's runs can be kept."""
    yield _state(found.folder, found.database, facts)
    if not found.folder.pseudo:
        yield from _space(STATE_SPACE, found.folder, _LEAST_RECORDS)


def _state(folder: FolderFacts, database: FolderFacts | None, facts: Facts) -> Finding:
    if not folder.is_folder:
        return STATE.problem(f"{folder.path} is not a folder", "remove it, or set GPUJOBS_STATE_DIR")
    if folder.pseudo:
        return STATE.problem(
            f"{folder.path} is on no disk ({folder.filesystem}): nobody can keep files there",
            "set GPUJOBS_STATE_DIR to a folder of yours",
        )
    if folder.writable is False:
        done = "written" if folder.exists else "made"
        return STATE.problem(
            f"{describe(folder)} cannot be {done} by {facts.user}", "set GPUJOBS_STATE_DIR to a folder of yours"
        )
    if database is not None:
        return _database(folder, database, facts)
    if not folder.exists:
        return STATE.ok(f"{folder.path} is not there yet: the first run makes it")
    if folder.mode is None:
        return STATE.unknown(folder.errors.get("mode"))
    if folder.mode & 0o022:
        return STATE.warning(f"{describe(folder)}: others can change your records", f"`chmod go-w {folder.path}`")
    if folder.uid not in (None, facts.uid):
        return STATE.warning(f"{describe(folder)} is not yours", "set GPUJOBS_STATE_DIR to a folder of yours")
    return STATE.ok(describe(folder))


def _database(folder: FolderFacts, database: FolderFacts, facts: Facts) -> Finding:
    """A database is not safe on a network file system, so the index of runs lies elsewhere."""
    away = f"{folder.path} is on a network file system ({folder.filesystem}), so the index is kept in {database.path}"
    usable = database.is_folder and (
        not database.exists or (database.uid == facts.uid and not (database.mode or 0) & 0o022)
    )
    if not usable or database.writable is False:
        return STATE.problem(f"{away}, which is not yours alone", "set GPUJOBS_STATE_DIR to a folder on a local disk")
    return STATE.note(f"{away} on this machine")


def index(found: IndexFacts, facts: Facts) -> Iterator[Finding]:
    """Whether the database knows what lies beside it."""
    remedy = "`gpujobs doctor --rebuild` makes it again from what lies beside it"
    if found.damage is not None:
        yield INDEX.problem(f"{found.path} cannot be read: {found.damage}", remedy)
    elif found.missing:
        few = ", ".join(map(str, found.missing[:5])) + (" …" if len(found.missing) > 5 else "")
        lacks = "lacks" if found.exists else "is not there, and would have"
        numbers = f"{count(len(found.missing), 'number')} of runs or submissions"
        yield INDEX.problem(f"{found.path} {lacks} {numbers}: {few}", remedy)
    else:
        yield INDEX.ok("complete" if found.exists else "not there yet: the first run makes it")
