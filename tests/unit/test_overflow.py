"""Context overflow, in each provider's words as they were recorded, and what only sounds like it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentrun.api.workflow import FailureClass
from agentrun.runner.error_words import read_error
from agentrun.runner.failures import ContextOverflow
from agentrun.runner.overflow import is_overflow
from agentrun.runner.refusals import bound
from tests.harness.loopback import reply
from tests.harness.model_bench import OK, completion, model_bench


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


OPENAI_OLD = (
    "This model's maximum context length is 4097 tokens. However, you requested 4927 tokens (3927 in the messages, "
    "1000 in the completion). Please reduce the length of the messages or completion."
)
OVERFLOWS: dict[str, tuple[int, Any]] = {
    "openai-code": (400, error("Too long.", code="context_length_exceeded", type="invalid_request_error")),
    "openai-chat": (400, error("This model's maximum context length is 8192 tokens. However, your messages resulted in "
                               "9000 tokens. Please reduce the length of the messages.")),
    "openai-responses": (400, error("Your input exceeds the context window of this model. Please adjust your input and "
                                    "try again.", param="input")),
    "openai-string": (400, error("Invalid 'messages[1].content': string too long. Expected a string with maximum "
                                 "length "
                                 "10485760, but got a string with length 11000000 instead.",
                                 code="string_above_max_length")),
    "azure": (400, error(OPENAI_OLD, param="messages", code="context_length_exceeded")),
    "llama.cpp": (400, {"error": {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 4267,
                                  "message": "request (4267 tokens) exceeds the available context size (4096 tokens), "
                                             "try increasing it", "n_ctx": 4096}}),
    "llama.cpp-500": (500, {"error": {"code": 500, "message": "the request exceeds the available context size. try "
                                                              "increasing the context size", "type": "server_error"}}),
    "llama.cpp-shift": (500, error("context shift is disabled", code=500)),
    "llama.cpp-behind-a-gateway": (400, {"detail": json.dumps({"error": {"type": "exceed_context_size_error"}})}),
    "vllm": (400, {"object": "error", "type": "BadRequestError", "code": 400,
                   "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens "
                              "in the messages, Please reduce the length of the messages."}),
    "vllm-new": (400, error("This model's maximum context length is 4096 tokens. However, your request has 5000 input "
                            "tokens. Please reduce the length of the input messages.", code=400)),
    "vllm-model-len": (400, {"message": "The decoder prompt (length 5000) is longer than the maximum model length of "
                                        "4096. Make sure that `max_model_len` is no smaller."}),
    "sglang": (400, {"object": "error", "message": "The input (5000 tokens) is longer than the model's context length "
                                                   "(4096 tokens)."}),
    "sglang-requested": (400, error("Requested token count exceeds the model's maximum context length of 4096 tokens. "
                                    "You requested a total of 5000 tokens: 4500 tokens from the input messages and 500 "
                                    "tokens for the completion.")),
    "tgi": (422, {"error": "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000",
                  "error_type": "validation"}),
    "together": (422, error("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 8100 "
                            "`inputs` tokens and 512 `max_new_tokens`")),
    "ollama": (400, {"error": "prompt too long; exceeded max context length by 123 tokens"}),
    "ollama-input": (400, {"error": "the input length exceeds the context length"}),
    "lmstudio": (400, {"error": "Trying to keep the first 4500 tokens when context the overflows. However, the model "
                                "is "
                                "loaded with context length of only 4096 tokens, which is not enough."}),
    "lmstudio-new": (400, {"error": "The number of tokens to keep from the initial prompt is greater than the context "
                                    "length. Try to load the model with a larger context length."}),
    "mistral": (400, {"object": "error", "type": "invalid_request_prompt", "code": "3051",
                      "message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 "
                                 "maximum "
                                 "context length"}),
    "cohere": (400, {"message": "too many tokens: total number of tokens in this request cannot exceed 4081 tokens - "
                                "received 4500. Try using a shorter prompt, or enabling prompt truncating."}),
    "anthropic": (400, {"type": "error", "error": {"type": "invalid_request_error",
                                                   "message": "prompt is too long: 210000 tokens > 200000 maximum"}}),
    "anthropic-413": (413, {"type": "error", "error": {"type": "request_too_large",
                                                       "message": "Request exceeds the maximum size"}}),
    "gemini": (400, [{"error": {"code": 400, "status": "INVALID_ARGUMENT",
                                "message": "The input token count (1196265) exceeds the maximum number of tokens "
                                           "allowed "
                                           "(1048575)."}}]),
    "bedrock": (400, {"message": "Input is too long for requested model."}),
    "bedrock-type": (400, {"__type": "ValidationException", "Message": "Input is too long for requested model."}),
    "groq": (400, error("Please reduce the length of the messages or completion.", type="invalid_request_error",
                        param="messages", code="context_length_exceeded")),
    "deepseek": (400, error("This model's maximum context length is 65536 tokens. However, you requested 70000 tokens "
                            "(70000 in the messages, 0 in the completion).", type="invalid_request_error")),
    "openrouter": (400, error("This endpoint's maximum context length is 131072 tokens. However, you requested about "
                              "140000 tokens (140000 of text input). Please reduce the length of either one.",
                                      code=400)),
    "openrouter-raw": (400, error("Provider returned error", code=400, metadata={
        "provider_name": "X", "raw": json.dumps({"message": "prompt is too long: 9 tokens > 8 maximum"})})),
    "xai": (400, {"code": "Client specified an invalid argument",
                  "error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens."}),
    "fireworks": (400, error("The prompt is too long: 140000, model maximum context length: 131071", code=None)),
    "moonshot": (400, error("Invalid request: Your request exceeded model token limit: 262144")),
    "minimax": (400, error("invalid params, context window exceeds limit (2013)")),
    "dashscope": (400, error("Range of input length should be [1, 98304]", code="invalid_parameter_error")),
    "glm": (400, error("Prompt exceeds max length", code="1261")),
    "watsonx": (400, {"errors": [{"code": "invalid_input_argument", "message": "the number of input tokens 5000 cannot "
                                  "exceed the total tokens limit 4096 for this model"}]}),
    "copilot": (400, error("prompt token count of 128001 exceeds the limit of 128000", code="model_max_prompt_tokens")),
    "github-models": (413, error("Request body too large for gpt-4o model. Max size: 8000 tokens.",
                                 code="tokens_limit_reached")),
    "nginx": (413, "<html><head><title>413 Request Entity Too Large</title></head></html>"),
    "no-words": (413, ""),
    "vertex": (400, [error("Unable to submit request because the input token count is 36250 but model only supports up "
                           "to 32768. Reduce the input token count and try again.", code=400)]),
    "cloudflare": (400, {"errors": [{"code": 5021, "message": "AiError: The estimated number of input and maximum "
                                                              "output "
                                     "tokens (10000) exceeded this model context window limit (7968)."}]}),
    "tgi-without-marks": (422, {"error": "Input validation error: inputs must have less than 4096 tokens. Given: "
                                         "5000"}),
    "replicate": (400, {"detail": "prompt length exceeds max input length"}),
    "token-limit": (400, error("This request would exceed the model's maximum token limit.")),
    "prompt-large": (400, error("Your prompt is too large for this model")),
    "glm-chinese": (400, error("Prompt 超长", code="1261")),
    "chinese": (400, error("输入内容超过模型最大长度")),
    "bedrock-tokens": (400, error("tokens in request more than max tokens allowed")),
    "litellm": (400, error("litellm.ContextWindowExceededError: litellm.BadRequestError: This model's maximum context "
                           "length is 8192 tokens.", type=None, param=None, code="400")),
}  # fmt: skip
OTHERS: dict[str, tuple[int, Any]] = {
    "groq-413": (413, error("Request too large for model `x` in organization `org_1` service tier `on_demand` on "
                            "tokens "
                            "per minute (TPM): Limit 6000, Requested 7000, please reduce your message size and try "
                            "again.",
                            type="tokens", code="rate_limit_exceeded")),
    "groq-413-without-a-code": (413, error("Request too large on tokens per minute (TPM): Limit 6000, Requested 7000")),
    "quota": (400, error("You exceeded your current quota: the context cache is full")),
    "groq-bound": (400, error("`max_completion_tokens` must be less than or equal to `8192`, the maximum value for "
                              "`max_completion_tokens` is less than the `context_window` for this model")),
    "openai-bound": (400, error("max_tokens is too large: 200000. This model supports at most 16384 completion "
                                "tokens.")),
    "another-string": (400, error("Invalid value: 'tool'. Supported values are: 'system', 'user'.")),
    "name": (400, error("Invalid 'tools[0].name': string does not match pattern.")),
    "image-input": (400, error("The image input is too large")),
    "quota-413": (413, error("You exceeded your current quota, please check your plan", code="insufficient_quota")),
    "image": (400, error("The image is too large: at most 20 MB")),
    "no-model": (404, error("The model `context` does not exist")),
}  # fmt: skip


def body_of(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


@pytest.mark.parametrize("name", OVERFLOWS)
def test_words_of_an_overflow(name: str) -> None:
    status, body = OVERFLOWS[name]
    said = read_error(body_of(body), "application/json", str)
    assert is_overflow(status, said.text, said.codes)


@pytest.mark.parametrize("name", OTHERS)
def test_words_of_something_else(name: str) -> None:
    status, body = OTHERS[name]
    said = read_error(body_of(body), "application/json", str)
    assert not is_overflow(status, said.text, said.codes)


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_an_overflow_is_told_apart_over_http(api: str) -> None:
    async with model_bench(api) as model:
        for name, (status, body) in OVERFLOWS.items():
            before = len(model.server.received)
            failure = await model.fails(reply(body_of(body), status=status), tools=[], max_output_tokens=512)
            assert isinstance(failure, ContextOverflow), name
            assert len(model.server.received) == before + 1, name
        for name in ("openai-code", "llama.cpp", "gemini"):
            body = OVERFLOWS[name][1]
            inside = body[0] if isinstance(body, list) else body
            assert isinstance(await model.fails(reply(inside)), ContextOverflow), name


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_something_else_is_no_overflow_over_http(api: str) -> None:
    async with model_bench(api) as model:
        for name, (status, body) in OTHERS.items():
            failure = await model.fails(reply(body_of(body), status=status))
            assert not isinstance(failure, ContextOverflow), name
            assert not failure.retryable, name
            limited = failure.failure_class is FailureClass.RATE_LIMITED
            assert limited is name.startswith("groq-413"), name


LOWERED: dict[str, tuple[str, int, bool]] = {
    "openai": ("max_tokens is too large: 200000. This model supports at most 16384 completion tokens, whereas you "
               "provided 200000.", 16384, True),
    "groq": ("`max_completion_tokens` must be less than or equal to `8192`, the maximum value for "
             "`max_completion_tokens` is less than the `context_window` for this model", 8192, True),
    "deepseek": ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", 8192, True),
    "anthropic": ("max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens for "
                  "claude-3-5-sonnet-20241022", 8192, True),
    "ollama": ("max_tokens (100000) exceeds model's maximum output tokens (65536) for model deepseek-v4", 65536, True),
    "openai-responses": ("Invalid 'max_output_tokens': integer above maximum value. Expected a value <= 32,768, but "
                         "got "
                         "100000 instead.", 32768, True),
    "between": ("max_completion_tokens must be between 1 and 4096", 4096, True),
    "in-range": ("Invalid parameter: max_tokens should be in [1, 2048]", 2048, True),
    "dashscope": ("Range of max_tokens should be [1, 8192]", 8192, True),
    "cannot-exceed": ("`max_tokens` cannot exceed `4096`.", 4096, True),
    "greater": ("max_tokens is greater than the maximum of 4096", 4096, True),
    "bedrock": ("The maximum tokens you requested exceeds the model limit of 4096. Try again with a maximum tokens "
                "value "
                "that is lower than 4096.", 4096, True),
    "pydantic": ("max_tokens: Input should be less than or equal to 16384", 16384, True),
    "vllm": ("'max_tokens' or 'max_completion_tokens' is too large: 100000. This model's maximum context length is "
             "40960 "
             "tokens and your request has 500 input tokens (100000 > 40960 - 500).", 40460, False),
    "openai-old": ("This model's maximum context length is 16385 tokens. However, you requested 100927 tokens (927 "
                   "in the "
                   "messages, 100000 in the completion).", 15458, False),
    "openrouter": ("This endpoint's maximum context length is 131072 tokens. However, you requested about 220000 "
                   "tokens "
                   "(120000 of text input, 100000 in the output).", 11072, False),
    "tgi": ("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 3000 `inputs` tokens "
            "and "
            "100000 `max_new_tokens`", 1096, False),
    "anthropic-both": ("input length and `max_tokens` exceed context limit: 150000 + 100000 > 200000, decrease input "
                       "length or `max_tokens` and try again", 50000, False),
}  # fmt: skip


@pytest.mark.parametrize("name", LOWERED)
def test_words_of_a_bound_that_is_too_large(name: str) -> None:
    words, most, lasting = LOWERED[name]
    said = read_error(body_of(error(words)), "application/json", str)
    assert bound({"max_completion_tokens": 100_000}, said) == (f">{most}", lasting)
    assert bound({"max_tokens": most}, said) is None
    assert bound({}, said) is None


@pytest.mark.parametrize("name", ["openai", "vllm"])
async def test_a_bound_that_is_too_large_is_lowered(name: str) -> None:
    words, most, lasting = LOWERED[name]
    async with model_bench("chat") as model:
        refused: set[str] = set()
        good = reply(completion(content="hello"))
        turn = await model.ask(reply(error(words), status=400), good, max_output_tokens=100_000, refused=refused)
        assert turn.text == "hello"
        assert [r.json["max_completion_tokens"] for r in model.server.received] == [100_000, most]
        assert refused == ({f">{most}"} if lasting else set())
        await model.ask(good, max_output_tokens=100_000)
        assert model.server.received[-1].json["max_completion_tokens"] == (most if lasting else 100_000)
        await model.ask(good, max_output_tokens=100)
        assert model.server.received[-1].json["max_completion_tokens"] == 100


async def test_a_bound_that_shrinks_for_ever_is_given_up() -> None:
    answers = [
        reply(error(f"max_output_tokens must be less than or equal to {100_000 - n}"), status=400) for n in range(1, 90)
    ]
    async with model_bench("responses") as model:
        failure = await model.fails(*answers, max_output_tokens=100_000)
        assert "refused 12 parts of one request" in failure.message
        assert len(model.server.received) == 12
        assert (await model.ask(OK)).text == "hello"
