"""Turns the errors of S3 and botocore into those of a store. Their messages say who has to do what.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

from agentrun.api.printable import printable
from agentrun.store.protocol import KeyExists, KeyMissing, StoreError, StoreUnavailable, StoreUnfit

_CONFLICT = frozenset({"ConditionalRequestConflict", "OperationAborted"})
_CREDENTIALS = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidToken",
        "InvalidClientTokenId",
        "InvalidIdentityToken",
        "UnrecognizedClientException",
        "TokenRefreshRequired",
        "XAdminUserNotFound",  # versitygw's InvalidAccessKeyId
    }
)
_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
_CONFIGURE = (
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in with `aws sso login`; "
    "for a store that is not AWS's, AWS_ENDPOINT_URL_S3 too"
)


class Again(StoreError):
    """The request has no result yet, and may be sent again at once. No caller of the store sees this error."""


def explained(error: Exception, url: str) -> StoreError:
    """The store's error for the botocore ``error`` of a request to the store ``url``."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    return _refused(error, url) if isinstance(error, ClientError) else _failed(error, url)


def _refused(error: Exception, url: str) -> StoreError:
    """The store's error for a ClientError: the server answered."""
    response = getattr(error, "response", {})
    code = _clean(response.get("Error", {}).get("Code", "?"))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    operation = getattr(error, "operation_name", "request")
    said = f"{url}: {operation} was answered {status} {code} ({_clean(response.get('Error', {}).get('Message', ''))})"
    if status == 412:
        return KeyExists(f"{said}: another object is there")
    if code in {"NoSuchKey", "NoSuchVersion"}:
        return KeyMissing(said)
    if code in _CONFLICT:
        return Again(f"{operation} was answered {status} {code}: another write of the same object is under way")
    if code == "NoSuchBucket":
        return StoreUnfit(f"{said}; create the bucket, or correct its name, the region or the endpoint")
    if code in _CREDENTIALS:
        return StoreUnfit(f"{said}; the credentials are wrong or have expired: {_CONFIGURE}")
    if code == "RequestTimeTooSkewed":
        return StoreUnfit(f"{said}; set this machine's clock")
    if code in _REGION or status in {301, 307}:
        return StoreUnfit(f"{said}; the bucket is in another region: set AWS_REGION to it")
    if status in {401, 403}:
        return StoreUnfit(
            f"{said}; grant s3:GetObject and s3:PutObject on the prefix, and s3:ListBucket on the bucket "
            "(without it a missing object is answered with AccessDenied)"
        )
    if code == "NotImplemented":
        return StoreUnfit(f"{said}; this server lacks what the store needs: use another or a newer one")
    if status >= 500 or status in {408, 429} or code == "RequestTimeout":
        return StoreUnavailable(f"{said}; wait, then resume the run")
    return StoreUnfit(f"{said}; check the address and that an S3 server answers there")


def _failed(error: Exception, url: str) -> StoreError:
    """The store's error for any other botocore error: no request was sent, or no answer came."""
    from botocore import exceptions as e  # noqa: PLC0415

    said = f"{url}: {_clean(error)}"
    if isinstance(error, e.SSLError):
        return StoreUnfit(f"{said}; the server's certificate is not trusted: set AWS_CA_BUNDLE or correct the endpoint")
    if isinstance(error, e.ConnectionError | e.HTTPClientError):  # no connection, a timeout, a proxy that fails
        return StoreUnavailable(f"{said}; check the network and the endpoint, then resume the run")
    if isinstance(error, e.CredentialRetrievalError | e.MetadataRetrievalError):
        return StoreUnavailable(f"{said}; the source of the credentials did not answer: try again later")
    if isinstance(error, e.NoCredentialsError | e.PartialCredentialsError | e.ProfileNotFound):
        return StoreUnfit(f"{said}; {_CONFIGURE}")
    return StoreUnfit(f"{said}; check the address and the AWS configuration")


def _clean(text: object) -> str:
    """``text`` as one short line without control characters: a server's text is shown on a person's terminal."""
    return printable(" ".join(str(text).split()), 300)
