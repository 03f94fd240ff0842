"""Whether the admission policies are there that vouch for decisions: without them nobody's name could be believed."""

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
    """Looks from time to time; fails closed."""

    def __init__(self, kube: Kube, names: Sequence[str]) -> None:
        self._kube, self._names = kube, names
        self._there = not names
        self._known = asyncio.Event()

    def vouches(self) -> bool:
        """Whether decisions may be taken."""
        return self._there

    async def known(self) -> None:
        """Return once the API server has said whether they are there. A leader that does not know it yet would take
        nobody's word, and names that are verified for unverified.
        """
        await self._known.wait()

    async def look_again(self) -> None:
        """Keep looking until cancelled."""
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
            log.error("decisions are not taken until the chart's admission policies are installed: %s", error)
        except Refused as error:
            self._there = False
            log.error("decisions are not taken until the operator may read the admission policies: %s", error)
        except ClusterError as error:
            log.warning("the admission policies cannot be looked at: %s", error)
            return
        else:
            self._there = True
        self._known.set()
