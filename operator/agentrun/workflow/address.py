"""The address of a model's endpoint: the URL from the workflow or the environment, and the URL of each call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from agentrun.api.errors import Path, Problem
from agentrun.api.texts import quoted
from agentrun.api.workflow import Model, WorkflowSpec
from agentrun.workflow.network_guard import forbidden_url

URL_VARIABLE = "OPENAI_BASE_URL"
DEFAULT = "https://api.openai.com/v1"

PATHS = {"responses": "/responses", "chat": "/chat/completions"}


OTHERS = ("/completions", "/messages")
"""Paths of calls of APIs that agentrun does not use."""


class BadAddress(ValueError):
    """A URL cannot be an endpoint. The message says where it is, what is wrong, and what to write."""


@dataclass(frozen=True, slots=True)
class Address:
    """An endpoint: ``base`` without a slash at its end, and the ``query`` that every call carries ("" for none)."""

    base: str
    query: str = ""

    def of(self, path: str) -> str:
        """The URL of a call: ``path`` comes before the query."""
        return f"{self.base}{path}" + (f"?{self.query}" if self.query else "")

    @property
    def versioned(self) -> bool:
        """Whether calls carry an ``api-version``, as Azure's deployments need it."""
        return any(part.partition("=")[0].lower() == "api-version" for part in self.query.split("&"))


_AZURE = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")


def azure_hint(address: Address, api: str) -> str:
    """What an address of Azure lacks (it has several similar forms); "" if nothing, or if it is not Azure's."""
    parts = urlsplit(address.base)
    deployment = "/openai/deployments/" in parts.path
    if deployment and not address.versioned:
        return "an endpoint of an Azure deployment needs its version: …/deployments/NAME?api-version=2024-10-21"
    if deployment and api == "responses":
        return "Azure's deployments have no Responses API: write api: chat, or an endpoint that ends with /openai/v1"
    if (parts.hostname or "").endswith(_AZURE) and parts.path in ("", "/v1", "/openai") and not address.versioned:
        return "an endpoint of Azure ends with /openai/v1, or names a deployment and its version"
    return ""


def address_of(model: Model, environment: Mapping[str, str]) -> Address:
    """The address of ``model``: its ``endpoint``, else the variable OPENAI_BASE_URL, else OpenAI's. An empty or blank
    variable counts as not set.

    Raises:
        BadAddress: the address that applies cannot be used.
    """
    if model.endpoint is not None:
        return read_address(model.endpoint, "endpoint", model.api)
    text = environment.get(URL_VARIABLE, "").strip()
    return read_address(text, f"the environment variable {URL_VARIABLE}", model.api) if text else Address(DEFAULT)


def check_endpoints(spec: WorkflowSpec, path: Path) -> list[Problem]:
    """The problems of the endpoints of ``spec``, which is at ``path`` of its document."""
    problems = []
    for number, model in enumerate(spec.models):
        if model.endpoint is not None:
            try:
                read_address(model.endpoint, "it", model.api)
            except BadAddress as error:
                problems.append(Problem((*path, "models", number, "endpoint"), str(error).removeprefix("it: ")))
    return problems


def read_address(text: str, what: str, api: str) -> Address:
    """``text`` as an address. If its path already ends with the call of ``api``, that part is removed.

    Raises:
        BadAddress: ``text`` cannot be used. The message begins with ``what``, which names where ``text`` is from.
    """
    shown = quoted(text.rpartition("@")[2], 100)  # without a password
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise BadAddress(f"{what}: {shown} is not a URL ({error})") from error
    if (
        parts.scheme.lower() not in ("http", "https")
        or not host
        or any(c.isspace() or not c.isprintable() for c in text)
    ):
        raise BadAddress(f"{what}: {shown} is not a URL; write one such as https://models.internal/v1")
    if parts.username is not None or parts.password is not None:
        raise BadAddress(
            f"{what}: the URL contains a user and a password; remove them, and give the key as credentials"
        )
    if parts.fragment or text.endswith("#"):
        raise BadAddress(f"{what}: {shown} has a fragment (#…), which is never sent; remove it")
    if "{" in text or "}" in text:
        raise BadAddress(
            f"{what}: {shown} contains braces; expressions and placeholders are not replaced in an endpoint"
        )
    if (why := forbidden_url(text)) is not None:
        raise BadAddress(f"{what}: {why}")
    return Address(_base(parts, what, api), parts.query)


def _base(parts: SplitResult, what: str, api: str) -> str:
    path = parts.path.rstrip("/")
    for ending in OTHERS:
        if path.endswith(ending) and not path.endswith(PATHS["chat"]):
            raise BadAddress(
                f"{what}: the path ends with {ending}, which is another API; write the base URL, up to /v1"
            )
    for name, ending in PATHS.items():
        if path.endswith(ending):
            if name != api:
                raise BadAddress(
                    f"{what}: the path ends with {ending}, which is api: {name}, but the model says api: {api}"
                )
            path = path.removesuffix(ending).rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"
