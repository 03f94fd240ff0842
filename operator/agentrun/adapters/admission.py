"""Checks that the admission policies that vouch for decisions are installed: without them no name could be trusted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from agentrun.kube.client import Kube
from agentrun.kube.errors import ClusterError, NotFound, Refused

log = logging.getLogger("agentrun.admission")

API = "/apis/admissionregistration.k8s.io/v1"
AGAIN = 60.0
SOON = 5.0


class Admission:
    """Polls for the ValidatingAdmissionPolicies and their bindings. No decision is accepted until they are found.

    If the API server does not answer, the last result stays.
    """

    def __init__(self, kube: Kube, names: Sequence[str]) -> None:
        self._kube, self._names = kube, names
        self._there = not names
        self._known = asyncio.Event()

    def vouches(self) -> bool:
        """Whether decisions may be accepted."""
        return self._there

    async def known(self) -> None:
        """Wait for the first result. A leader without it would accept no decision, and record names that the policies
        vouch for as unverified.
        """
        await self._known.wait()

    async def look_again(self) -> None:
        """Poll until cancelled: every ``AGAIN`` seconds, or every ``SOON`` seconds while a policy is missing."""
        while True:
            await self._look()
            await asyncio.sleep(AGAIN if self._there else SOON)

    async def _look(self) -> None:
        try:
            for name in self._names:
                await self._kube.get(f"{API}/validatingadmissionpolicies/{name}")
                await self._kube.get(f"{API}/validatingadmissionpolicybindings/{name}")
        except NotFound as error:
            self._there = False
            log.error("decisions are not accepted until the chart's admission policies are installed: %s", error)
        except Refused as error:
            self._there = False
            log.error("decisions are not accepted until the operator may read the admission policies: %s", error)
        except ClusterError as error:
            log.warning("the admission policies cannot be read: %s", error)
            return
        else:
            self._there = True
        self._known.set()
