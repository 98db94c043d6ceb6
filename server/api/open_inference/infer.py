"""ModelInfer and ModelStreamInfer of the Open Inference Protocol."""

import asyncio
from collections.abc import AsyncIterator, Awaitable

from server.api.handler import handles_bytes, parsed, rpc, send
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.computing import Computing
from server.api.open_inference.generation import Tell
from server.api.servicer import Servicer
from server.auth.clients import certificate_names
from server.context import RpcContext
from server.errors import MalformedMessage, ServerError
from server.ledger import COPIES, Account

_MAX_IN_A_STREAM = 256


class Inference(Computing):
    """Runs models."""

    @rpc("model_name")
    def ModelInfer(  # noqa: N802
        self, request: pb.ModelInferRequest, context: RpcContext
    ) -> Awaitable[pb.ModelInferResponse]:
        """Run a model."""
        return self._infer(request, context)

    @handles_bytes
    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[pb.ModelInferRequest | MalformedMessage], servicer: Servicer
    ) -> None:
        """Run requests as they come; each is answered when it is ready, a text token by token; errors are their own."""
        room, writing = asyncio.Semaphore(_MAX_IN_A_STREAM), asyncio.Lock()
        call = self.rpcs.calls.current()
        call.method = "ModelStreamInfer"

        async def answer(request: pb.ModelInferRequest | MalformedMessage, size_bytes: int, account: Account) -> None:
            async def tell(response: pb.ModelInferResponse) -> None:
                response.parameters["triton_final_response"].bool_param = False
                await write(pb.ModelStreamInferResponse(infer_response=response))

            async def write(response: pb.ModelStreamInferResponse) -> None:
                content = self._write_in_stream(request, response, account)
                async with writing:
                    await send(servicer, call, content)

            try:
                response = await self._respond_in_stream(request, size_bytes, servicer, account, tell)
                account.answer()
                await write(response)
            finally:
                room.release()

        try:
            async with asyncio.TaskGroup() as group:
                async for request in requests:
                    size_bytes = call.received_bytes
                    call.account.hold("request", size_bytes)
                    await room.acquire()
                    account = Account(self.rpcs.calls.ledger)
                    account.hold("request", size_bytes)
                    call.account.hold("request", 0)
                    group.create_task(answer(request, size_bytes, account)).add_done_callback(account.close)
        except asyncio.CancelledError as error:
            raise error.with_traceback(None)  # noqa: B904 -- whose frames hold the call, and this error

    def _write_in_stream(
        self,
        request: pb.ModelInferRequest | MalformedMessage,
        response: pb.ModelStreamInferResponse,
        account: Account,
    ) -> bytes:
        content: bytes = response.SerializeToString()
        if len(content) > self.config.max_answer_bytes and response.HasField("infer_response"):
            what = f"an answer of {len(content)} bytes"
            refusal = _refusal(request, f"{what} is too large (the server's --max-message-bytes)")
            content = refusal.SerializeToString()
        account.hold("answer", COPIES * len(content))
        return content

    async def _respond_in_stream(
        self,
        request: pb.ModelInferRequest | MalformedMessage,
        size_bytes: int,
        servicer: Servicer,
        account: Account,
        tell: Tell,
    ) -> pb.ModelStreamInferResponse:
        metadata, names = dict(servicer.invocation_metadata() or ()), certificate_names(servicer.auth_context())
        model = "" if isinstance(request, MalformedMessage) else request.model_name
        remaining, peer = servicer.time_remaining(), servicer.peer()
        context = RpcContext.begin("ModelStreamInfer", model, metadata, remaining, peer, account)
        context.received_bytes = size_bytes

        async def infer(context: RpcContext) -> pb.ModelInferResponse:
            return await self._infer(parsed(request), context, tell)

        try:
            response = await self.rpcs.run(context, metadata, infer, certificates=names)
        except ServerError as error:
            error.with_traceback(None)  # whose frames hold the request, and this error
            return _refusal(request, str(error))
        response.parameters["triton_final_response"].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=response)


def _refusal(request: pb.ModelInferRequest | MalformedMessage, message: str) -> pb.ModelStreamInferResponse:
    if isinstance(request, MalformedMessage):
        return pb.ModelStreamInferResponse(error_message=message)
    known = pb.ModelInferResponse(id=request.id, model_name=request.model_name, model_version=request.model_version)
    return pb.ModelStreamInferResponse(error_message=message, infer_response=known)
