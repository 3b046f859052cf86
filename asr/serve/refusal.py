"""What the server does not do, and why: in the form of OpenAI's errors, with the time to wait."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

LEFT = 499  # the status of what nobody reads, for counts and the log alone
KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Refusal(Exception):  # noqa: N818 -- an answer, not a fault
    """A request that is not answered as it was meant to be.

    Args:
        status: of HTTP.
        message: culprit, actual and expected.
        code: for programs.
        param: the field that is wrong; None for none.
        retry_after_s: when to try again [s]; None for never.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.retry_after_s = retry_after_s

    def response(self) -> JSONResponse:
        """Write it as OpenAI's clients read it."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)

    def body(self) -> dict[str, Any]:
        kind = KINDS.get(self.status, "invalid_request_error")
        return {
            "error": {
                "message": str(self),
                "type": "server_error" if self.status >= 500 else kind,
                "param": self.param,
                "code": self.code,
            }
        }


class ErrorFields(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = Field(description="the field that is wrong")
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer of status 400 and above."""

    error: ErrorFields
