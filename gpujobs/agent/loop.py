"""The agent's loop: what has changed, who may start, who does, and then sleep until something changes again."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import time

from gpujobs import __version__, past
from gpujobs.agent import child
from gpujobs.agent.desk import Desk
from gpujobs.agent.presence import served, sign_off, sole, trouble_path
from gpujobs.agent.readers import Readers
from gpujobs.agent.settings import LiveSettings
from gpujobs.errors import ConfigError, GpujobsError
from gpujobs.host import Host
from gpujobs.machine import procs, signals
from gpujobs.machine.board import new_id
from gpujobs.machine.reader import DriverSpec
from gpujobs.machine.watch import Watch
from gpujobs.model import ProcessId, Ticket
from gpujobs.queuemodel import Place, Submission
from gpujobs.records import openruns
from gpujobs.records.rundir import write_text_aside
from gpujobs.records.store import NewerStore
from gpujobs.runmodel import Cause, RunRecord
from gpujobs.scheduling import following, retrying
from gpujobs.scheduling.pool import Pool, Where
from gpujobs.turn import INSURANCE, Turn

_HEARD = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LINGER = 2.0  # seconds without work before it goes: the next submission often follows at once
_ORPHANS = 5.0  # seconds between looks at runs of an agent before us: nobody tells us of their ends
_BACKOFF = (1.0, 5.0, 30.0, 120.0)  # seconds, after a supervisor that could not even begin
_AFTER_TROUBLE = 5.0
_STEP = 1.0  # seconds between two rounds by which the wall clock does not drift, but is set
_BLIND = 1.0  # seconds between looks where the kernel has no more watches for this user


class Agent:
    """Everything one agent knows; whatever of it matters to anybody else stands in the store or on the board."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._pool = Pool(self._ticket)
        self._desk = Desk(host)
        self._settings = LiveSettings(host)
        self._revision = 0
        self._readers = Readers(DriverSpec.chosen(host.environment))
        self._children: dict[int, int] = {}  # pid of the supervisor -> number of the run
        self._failures: dict[int, tuple[int, float]] = {}  # of runs whose supervisors could not begin: how often, when
        self._me = procs.identify(os.getpid()) or ProcessId(os.getpid(), 0)
        self._trouble: str | None = ""  # nobody knows what an agent before us has said
        self.ending = False  # it was told to go, or another is to take its place
        self._idle_since: float | None = None
        self._ahead = _ahead()  # so much the wall clock is ahead of the one that is never set

    def run(self) -> None:
        """Serve until there is nothing to do, or until told to go."""
        gc.freeze()  # the garbage collector would touch every page that our children share with us
        with (
            signals.heard(_HEARD) as hearing,
            Watch(self._host.bell.folder) as bell,
            contextlib.closing(self._desk),
            contextlib.closing(self._settings),
        ):
            while not self.ending:
                bell.drain()
                pause = self._serve()
                if pause is None or self.ending:
                    return
                self._sleep(pause, hearing, bell)

    def _serve(self) -> float | None:
        """One round; the seconds until the next that is due whatever happens, or None if there is nothing to do."""
        try:
            self._host.store.check_shape()
            if self._is_elsewhere():
                return self._give_way("the settings name another board")
            self._reap()
            self._catch_up()
            self._note_step()
            self._pool.wake(time.time())  # first: a run whose time has come may have others to follow
            self._follow()
            self._start_all()
        except NewerStore as error:
            return self._give_way(str(error))
        except GpujobsError as error:
            # A full disk, a board that cannot be used: it may pass, and nothing is lost by waiting.
            self._complain(str(error))
            return _AFTER_TROUBLE
        self._complain(None)
        return self._pause()

    def _complain(self, trouble: str | None) -> None:
        """Say once what is wrong, in the log and where others look for it."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        with contextlib.suppress(OSError):  # the disk may be what is wrong
            if trouble is None:
                trouble_path(self._host).unlink(missing_ok=True)
            else:
                write_text_aside(trouble_path(self._host), trouble + "\n", sync=False)
        if trouble is not None:
            say(trouble)

    def _give_way(self, why: str) -> float:
        """Go, so that another agent can take our place, which would do what we cannot. Our supervisors go on."""
        say(f"{why}; this agent (gpujobs {__version__}) goes, and what waits goes on with the next gpujobs queue")
        self.ending = True
        return 0.0

    # ---- what has changed -------------------------------------------------------------------------------------

    def _is_elsewhere(self) -> bool:
        """Take in what has changed in the settings; whether by them we are on another board than that we serve."""
        if not self._settings.ripe():
            return False
        here = served(self._host)
        try:
            self._settings.refresh()
        except ConfigError as error:
            say(f"{error}; until that is mended, the settings stay as they were")
        return served(self._host) != here

    def _catch_up(self) -> None:
        """Take in what has changed in the store since the last time."""
        first = self._revision == 0
        self._revision, places = self._host.queue.changed(self._revision)
        now, busy = time.time(), set(self._children.values())
        here, elsewhere = served(self._host), []
        for submission in self._host.queue.submissions(self._pool.unknown(places)).values():
            self._pool.learn(submission)
            if submission.serves and submission.serves != here:
                elsewhere.append(submission.number)
        if elsewhere:  # on this machine they would have no lease where they run
            runs = [place.number for place in places if place.submission in elsewhere]
            say(f"held, as they were submitted for another board or scripted machine: {runs}")
            self._host.queue.hold(runs)
            places = [place for place in places if place.submission not in elsewhere]
        # Those that run first: they count against what their array may have out.
        for place in sorted(places, key=lambda place: place.state != "running"):
            if place.number not in busy:  # while its supervisor lives, the supervisor knows best
                self._put(place)
        if first or places:
            self._pool.wake(now)
        self._settle_orphans()

    def _note_step(self) -> None:
        """Pauses are told by the wall clock: where it was set, they are counted anew."""
        if abs(_ahead() - self._ahead) > _STEP:
            for place in self._pool.later:
                self._put(place)
        self._ahead = _ahead()

    def _settle_orphans(self) -> None:
        """Runs that somebody before us started: whose supervisor has died without a word are brought to an end."""
        for number in self._orphans():
            run = past.find(self._host, str(number))
            place = self._host.queue.place(number)
            if place is not None and (run.state != "running" or place.state != "running"):
                self._tell(run)
                self._put(place)

    def _tell(self, run: RunRecord) -> None:
        """Of a run that was lost nobody else can tell."""
        if run.state == "done" and run.cause is Cause.LOST and run.submission is not None:
            submission = self._host.queue.submission(run.submission)
            if submission is not None and (submission.notify or submission.mail):
                environment = self._host.queue.environment(submission.number)
                self._host.close_records()  # a child must not inherit an open database
                try:
                    child.fork_teller(submission, run, environment)
                except OSError as error:
                    say(f"nobody could be told that run {run.number} was lost: {error.strerror}")

    def _put(self, place: Place) -> None:
        """A run as it is now; one whose supervisor could not begin has to wait a while, whatever the store says."""
        place = retrying.no_later(place, time.time())
        failures, at = self._failures.get(place.number, (0, 0.0))
        if failures and place.state == "queued":
            left = at + _BACKOFF[min(failures, len(_BACKOFF)) - 1] - time.monotonic()
            place = place._replace(begin=max(time.time() + left, place.begin or 0.0))
        self._pool.put(place, time.time())

    def _orphans(self) -> list[int]:
        busy = set(self._children.values())
        return [number for number in self._pool.running if number not in busy]

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if (number := self._children.pop(pid, None)) is not None:
                self._readers.give_back(pid, os.waitstatus_to_exitcode(status))
                self._settle(number, os.waitstatus_to_exitcode(status))

    def _settle(self, number: int, code: int) -> None:
        """A supervisor has ended; if it was killed, its run is brought to an end here."""
        if code != 0:
            self._tell(past.find(self._host, str(number)))
        place = self._host.queue.place(number)
        if place is None:
            self._pool.drop(number)
            return
        if code == child.NOT_BEGUN and place.state == "queued":
            failures, _ = self._failures.get(number, (0, 0.0))
            self._failures[number] = failures + 1, time.monotonic()
        else:
            self._failures.pop(number, None)
        self._put(place)

    def _follow(self) -> None:
        """Let runs in that follow others which have ended; end those that never can."""
        for submission in self._pool.following:
            known = {number: self._followed(number) for number in submission.after}
            standing = following.standing(submission.after, submission.after_any, known)
            if isinstance(standing, following.Ready):
                self._pool.unblock(submission.number, time.time())
            elif isinstance(standing, following.Never):
                runs = dict.fromkeys(self._pool.runs_following(submission.number), standing.sentence)
                self._host.queue.end(runs, Cause.NOT_STARTED, time.time())
                self._host.bell.ring()

    def _followed(self, number: int) -> list[following.Followed]:
        runs = openruns.standings(self._host.store, number)
        return [following.Followed(run.number, run.state == "done", run.cause) for run in runs]

    # ---- starting ---------------------------------------------------------------------------------------------

    def _ticket(self, place: Place, submission: Submission) -> Ticket:
        """The ticket of a run that may start."""
        known = self._desk.estimated(submission.request)
        return past.ticket(self._host, place, submission, known, id=new_id(), number=place.number, holder=self._me)

    def _start_all(self) -> None:
        """Everything that can start does."""
        again = True
        while again and (turns := self._desk.take(self._pool.backlog)):
            again = self._desk.more
            looked = [(turn, self._ready(turn, self._pool.number(ticket.id))) for turn, ticket in turns]
            ready = [(turn, *found) for turn, found in looked if found is not None]
            # A child that has inherited an open database cannot open it anew.
            self._host.close_records()
            for turn, record, submission in ready:
                self._start(turn, record, submission)

    def _start(self, turn: Turn, record: RunRecord, submission: Submission) -> None:
        reader = self._readers.take() if turn.lease.claim.devices else None
        supervisor = child.fork(self._host, turn, record, submission, reader)
        self._children[supervisor] = record.number
        self._readers.lend(reader, supervisor)

    def _ready(self, turn: Turn, number: int) -> tuple[RunRecord, Submission] | None:
        """A run that has its turn; None, and the turn given up, if it does not wait any more."""
        place, submission = self._pool.place(number), self._pool.submission(number)
        assert place is not None
        record = self._host.store.find(str(number))
        self._pool.start(number)
        if record.state != "queued" or record.attempt != place.attempt:
            turn.lease.release()  # cancelled or held since we looked; the store will tell us
            return None
        return record, submission

    # ---- between ----------------------------------------------------------------------------------------------

    def _pause(self) -> float | None:
        now = time.time()
        if not self._pool.count(Where.LATER, Where.FOLLOWING, Where.THROTTLED, Where.WAITING, Where.RUNNING):
            self._idle_since = self._idle_since or time.monotonic()
            left = self._idle_since + _LINGER - time.monotonic()
            return left if left > 0 and not self._children else None if not self._children else INSURANCE
        self._idle_since = None
        times = [INSURANCE, self._desk.pause]
        if (due := self._pool.due) is not None:
            times.append(max(0.0, due - now))
        if (settling := self._settings.pause) is not None:
            times.append(settling)
        if self._orphans():
            times.append(_ORPHANS)
        return min(times)

    def _sleep(self, pause: float, hearing: int, bell: Watch) -> None:
        until = time.monotonic() + pause
        while True:
            sources = (hearing, bell.descriptor, self._desk.descriptor, self._settings.descriptor)
            watched = [number for number in sources if number is not None]
            if bell.descriptor is None or self._desk.unwatched:
                until = min(until, time.monotonic() + _BLIND)
            ready, _, _ = select.select(watched, [], [], max(0.0, until - time.monotonic()))
            if hearing in ready:
                self._hear(hearing)
            if not ready or hearing in ready or bell.descriptor in ready:
                return
            if self._settings.descriptor in ready and self._settings.stirred():
                return
            if self._desk.descriptor in ready and self._desk.worth_a_try(self._pool.backlog):
                return

    def _hear(self, hearing: int) -> None:
        for number in os.read(hearing, 4096):
            if number != signal.SIGCHLD:  # whose children are looked after in the next round
                self.ending = True


def serve(host: Host, lock: int | None = None) -> int:
    """Be this user's agent until there is nothing to do. Returns at once if there is another one.

    ``lock`` is the descriptor of the lock on that, if whoever started us has taken it for us.
    """
    while True:
        with sole(host, lock) as leading:
            lock = None
            if not leading:
                return 0
            agent = Agent(host)
            agent.run()
            if agent.ending:
                return 0
            sign_off(host)
        # Somebody may have submitted while we were about to go, and have seen that we were still there.
        if not host.queue.wants_an_agent():
            return 0


def _ahead() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def say(line: str) -> None:
    """A line in the agent's log."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
        sys.stderr.flush()
