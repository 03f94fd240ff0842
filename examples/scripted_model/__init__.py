r"""A model that answers from a script: an OpenAI-compatible server for demos, crash tests and benchmarks.

    python -m examples.scripted_model SCRIPT.yaml --port 0 [--port-file F] [--ledger F.jsonl] [--require-key]

prints its base URL. ``--profile NAME`` plays another endpoint than OpenAI's (see ``profiles.py``); all of them are also
found at ``/NAME/v1``. It serves ``POST /v1/responses`` and ``POST /v1/chat/completions``, streaming and not, and
``GET /v1/models``. In tests::

    with ScriptedModel({"rules": [{"text": "hello"}]}, ledger_path) as model:
        client = OpenAI(base_url=model.url, api_key="any")

A script is a mapping with ``rules`` and, if other models are to be unknown, ``models`` (a list of names). The first
rule that matches answers; a request that none matches gets 400 ``no_rule``::

    rules:
      - match:                      # all of these that are given must hold; none: every request
          text: refund              # is contained in the conversation's first user text
          regex: 'order (?P<order>\d+)'   # is found in the same text
          model: gpt-5.5            # the model asked for
          turn: 0                   # how many model turns the request's history has
          after_tool: look_up_order # the last item is the result of that tool
        text: "Order {{order}} costs {{tool.look_up_order.total}}."   # or `json`, rendered as JSON text
        json: {refund: true, amount: "{{tool.look_up_order.total}}"}
        tool_calls:                 # several are parallel
          - {name: look_up_order, args: {orderId: "{{order}}"}}      # args as a text are sent as they are
        reasoning: true             # Responses: a reasoning item that must come back verbatim, or 400
        usage: {input: 900, cached: 512, output: 80, reasoning: 32}   # what is left out: a quarter of the characters
        quirks: [id-empty]          # the answer as endpoints other than OpenAI write it: names of quirks.py
        latency: 0.5                # seconds before the answer or the failing status is sent
        fail:                       # one is used up by each matching request before the rule answers
          - {status: 429, retry_after: 1}   # also code, message
          - {hang: 30}              # no answer for 30 seconds, then the connection is closed
          - {cut: true}             # answered in the ledger, but the connection is closed without sending it
          - {malformed: true}       # 200 with broken JSON
          - {refuse: true}          # a refusal instead of the answer; or its text
          - {incomplete: max_output_tokens}   # half of the answer; or content_filter
          - {quirks: [finish-error]}    # an answer with these quirks
        fail_always: {status: 500}  # instead of the answer, for ever

``{{name}}`` is a named group of the regex, ``{{tool.NAME.field.0.field}}`` a part of the latest result of tool NAME in
the history. A text that is one ``{{…}}`` whole keeps the value's type in ``json`` and ``args``.

Answers depend on the request alone, but for the count of failures used up: a repeat, or a restart of the server, gets
the same bytes with the same ids, and other requests get other ids.
"""

from .script import ScriptError
from .server import ScriptedModel

__all__ = ["ScriptError", "ScriptedModel"]
