"""A request that is refused."""


class RequestError(Exception):
    """A request that is refused with an HTTP status and a message.

    `by_runner` tells a refusal by whatever runs the model from one by the server itself: under a
    stream the first has a slightly different head.
    """

    def __init__(self, status: int, message: str, *, by_runner: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.by_runner = by_runner
