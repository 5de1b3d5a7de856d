from __future__ import annotations

import asyncio
import threading

import pytest

from cluster.session.interrupts import raise_if_stopped, run_interruptibly, stoppable_by


def test_in_a_thread_an_event_takes_the_place_of_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.session.interrupts._POLLED_EVERY_S", 0.01)
    event, begun, ends = threading.Event(), threading.Event(), list[str]()

    async def work() -> None:
        try:
            begun.set()
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0)
            ends.append("tidied")

    def run() -> None:
        with stoppable_by(event):
            raise_if_stopped()
            with pytest.raises(KeyboardInterrupt):
                run_interruptibly(work(), lambda: False)
            with pytest.raises(KeyboardInterrupt):
                raise_if_stopped()
        raise_if_stopped()
        ends.append("ended")

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    event.set()
    thread.join()
    assert ends == ["tidied", "ended"]
