"""Whether the admission policies are there: known before anything is done, and looked at again."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from agentrun.adapters.admission import Admission
from agentrun.kube.client import Kube
from agentrun.kube.errors import ClusterError, NotFound, Refused, Unavailable


class Answers(Kube):
    """What the API server says of each policy, one after another; the last goes on."""

    def __init__(self, *answers: ClusterError | None) -> None:
        super().__init__(cast("Any", None))
        self.answers = list(answers)

    async def get(self, *_: Any, **__: Any) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer
        return {}


@pytest.mark.parametrize(
    ("answers", "known", "vouches"),
    [
        ([None], True, True),
        ([NotFound("no such policy")], True, False),
        ([None, NotFound("no such binding")], True, False),
        ([Refused("forbidden")], True, False),
        ([Unavailable("no answer")], False, False),
        ([Unavailable("no answer"), None], True, True),
    ],
    ids=["there", "no policy", "no binding", "forbidden", "no answer", "an answer later"],
)
async def test_nobody_leads_who_does_not_know_the_policies(
    answers: list[ClusterError | None], known: bool, vouches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentrun.adapters.admission.SOON", 0.0)
    admission = Admission(Answers(*answers), ["decisions"])
    looking = asyncio.ensure_future(admission.look_again())
    waiting = asyncio.ensure_future(admission.known())
    for _ in range(50):
        await asyncio.sleep(0)
    assert waiting.done() is known
    assert admission.vouches() is vouches
    for task in (looking, waiting):
        task.cancel()
    await asyncio.gather(looking, waiting, return_exceptions=True)
