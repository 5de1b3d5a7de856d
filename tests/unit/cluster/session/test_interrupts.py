from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from cluster.session.interrupts import run_interruptibly, stoppable

pytestmark = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def test_a_signal_interrupts_waiting(number: signal.Signals) -> None:
    def wait() -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt), stoppable():
        wait()


def test_a_repeated_signal_does_not_interrupt_the_cleanup(number: signal.Signals) -> None:
    tidied = False

    def wait() -> None:
        nonlocal tidied
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            tidied = True

    with pytest.raises(KeyboardInterrupt), stoppable():
        wait()
    assert tidied


def test_signal_handlers_are_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stoppable():
        assert signal.getsignal(number) != before
    assert signal.getsignal(number) == before


def test_a_signal_lets_a_coroutine_clean_up(number: signal.Signals) -> None:
    tidied = False

    async def work() -> None:
        nonlocal tidied
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0)
            tidied = True

    def interrupted() -> None:
        try:
            run_interruptibly(work())
        finally:
            assert signal.getsignal(number) is handler, "a second signal would end the program at once"

    with stoppable():
        handler = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    assert tidied


def test_without_a_signal_the_result_is_returned(number: signal.Signals) -> None:
    async def work() -> int:
        return int(number)

    assert run_interruptibly(work()) == number


def test_a_request_interrupts_like_a_signal(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.session.interrupts._POLLED_EVERY_S", 0.01)
    tidied = False

    async def work() -> None:
        nonlocal tidied
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0)
            tidied = True

    answers = iter([False, False, True])
    with stoppable():  # a shell may have started the tests with the signal ignored
        handler = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt):
            run_interruptibly(work(), lambda: next(answers))
        assert signal.getsignal(number) is handler
    assert tidied


def test_a_cancellation_from_inside_is_not_an_interrupt(number: signal.Signals) -> None:
    async def work() -> None:
        raise asyncio.CancelledError(number)

    with pytest.raises(asyncio.CancelledError):
        run_interruptibly(work())
