"""The methods of regard.v1."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from regard.v1.regard_pb2_grpc import RegardServiceServicer
from server.api.counts import MAX_TENSORS, check_count
from server.api.handler import RpcHandler, rpc, streaming_rpc
from server.api.hints import take_hints
from server.api.regard_v1.alignment import write_map
from server.api.regard_v1.attention import read_attention
from server.api.regard_v1.describe import describe_model, describe_positions
from server.api.regard_v1.generation import read_generation, write_each, write_whole
from server.api.regard_v1.late_interaction import read_late_documents, read_role, write_late_ranking
from server.api.regard_v1.messages import (
    Answer,
    AnswerOfMany,
    Asked,
    Named,
    OfMany,
    Write,
    check_labels,
    fill_each,
    fill_labels,
    read_content,
    read_contents,
    read_prompt,
    read_request,
    write_labels,
    write_layers_of,
    write_next,
    write_outputs,
    write_timings,
)
from server.api.regard_v1.ranking import read_documents, write_ranking
from server.api.regard_v1.similarity import read_compared, read_comparison, write_comparison
from server.api.regard_v1.tensors import read_tensors
from server.api.regard_v1.vectors import check_written, fill_vector, read_wanted, write_vector
from server.api.regard_v1.zero_shot import fill_candidates, read_candidates, wants_candidates
from server.context import RpcContext
from server.errors import InvalidInput, NotPossible
from server.generation.generator import Generator
from server.generation.request import GenerationRequest
from server.inference.alignment import check_image, find_towers, run_aligned
from server.inference.late_interaction import with_role
from server.inference.pipeline import Pipeline
from server.inference.preprocess import choose_outputs
from server.inference.request import Images, InferenceRequest, ManyResponses, Tensors, Texts
from server.inference.similarity import run_compared
from server.inference.workers import Workers
from server.inference.zero_shot import compute_labels, read_labels, towers_for, vector_outputs
from server.repository.lifecycle import Repository
from server.repository.loading import LoadedModel

_DEFAULT_TOP_K = 5


@dataclass(frozen=True, eq=False)
class RegardService(RegardServiceServicer):
    """Outputs for everyone, attention for whoever asks.

    Attributes:
        rpcs: What every RPC goes through.
        repository: The models.
        pipeline: What computes.
        workers: For decoding and encoding.
        generator: What writes texts.
        device: Where models run, for descriptions.
    """

    rpcs: RpcHandler
    repository: Repository
    pipeline: Pipeline
    workers: Workers
    generator: Generator
    device: str

    @rpc("model")
    async def Predict(self, request: api.PredictRequest, context: RpcContext) -> api.PredictResponse:  # noqa: N802
        """Run a model on the caller's tensors."""
        model = await self.repository.acquire(request.model, request.version)
        check_count("outputs", len(request.outputs), MAX_TENSORS)
        tower = model.of_inputs(request.inputs)
        outputs = choose_outputs(tower, tuple(request.outputs))
        inputs = await self._read_tensors(tower, request.inputs, context.received_bytes)
        return await self._answer(request, tower, inputs, outputs, write_outputs, context)

    @rpc("model")
    async def Classify(self, request: api.ClassifyRequest, context: RpcContext) -> api.ClassifyResponse:  # noqa: N802
        """Name what an image, a text or a pair of texts is."""
        model = await self.repository.acquire(request.model, request.version)
        if request.top_k < 0:
            raise InvalidInput("top_k", request.top_k, "0 for the default, or a positive number")
        count = request.top_k or _DEFAULT_TOP_K
        if wants_candidates(request, model):
            return await self._classify_by_candidates(request, model, count, context)
        if not model.contract.labels:
            raise NotPossible(f"model: {model.name} has no classes; expected a model with can_classify")
        if inputs := read_contents(request, self.pipeline.inputs.inputs):
            check_labels(count, len(inputs), model.contract.labels, self.pipeline.attention.answer_bytes)
            answer = api.ClassifyResponse(model=model.name, version=model.version)
            fill = partial(fill_labels, count=count)
            write_each = partial(fill_each, field=inputs.field, add=answer.results.add, fill=fill)
            return await self._answer_each(request, model, inputs, ("logits",), answer, write_each, context)
        write = partial(write_labels, count=count)
        return await self._answer(request, model, read_content(request), ("logits",), write, context)

    @rpc("model")
    async def Embed(self, request: api.EmbedRequest, context: RpcContext) -> api.EmbedResponse:  # noqa: N802
        """Turn an image or a text into a vector."""
        model = await self.repository.acquire(request.model, request.version)
        vector = model.contract.late or model.contract.embedding
        if vector is None:
            raise NotPossible(f"model: {model.name} gives no embedding; expected a model with can_embed")
        tower = model.of_inputs((request.WhichOneof("input"),))
        outputs, wanted = (vector.output,), read_wanted(request, model.contract)
        if inputs := read_contents(request, self.pipeline.inputs.inputs):
            answer = api.EmbedResponse(model=model.name, version=model.version)
            inputs = with_role(inputs, model.contract, query=read_role(request.role))
            fill = partial(fill_vector, wanted=wanted)
            write_each = partial(fill_each, field=inputs.field, add=answer.results.add, fill=fill)
            if model.contract.embedding and model.contract.embedding.sparse:
                write_each = partial(check_written, write_each, answer, self.pipeline.attention.answer_bytes)
            return await self._answer_each(request, tower, inputs, outputs, answer, write_each, context)
        write = partial(write_vector, wanted=wanted)
        one = with_role(read_content(request), model.contract, query=read_role(request.role))
        return await self._answer(request, tower, one, outputs, write, context)

    @rpc("model")
    async def Rank(self, request: api.RankRequest, context: RpcContext) -> api.RankResponse:  # noqa: N802
        """Sort documents by how well each answers a query."""
        model = await self.repository.acquire(request.model, request.version)
        max_bytes = self.pipeline.attention.answer_bytes
        answer = api.RankResponse(model=model.name, version=model.version)
        if late := model.contract.late:
            inputs = read_late_documents(request, model.contract, self.pipeline.inputs, max_bytes)
            write = partial(write_late_ranking, answer=answer, request=request)
            return await self._answer_each(request, model, inputs, (late.output,), answer, write, context)
        inputs = read_documents(request, model.contract, self.pipeline.inputs, max_bytes)
        write = partial(write_ranking, answer=answer, request=request)
        return await self._answer_each(request, model, inputs, ("logits",), answer, write, context)

    @rpc("model")
    async def Compare(self, request: api.CompareRequest, context: RpcContext) -> api.CompareResponse:  # noqa: N802
        """Say how similar two inputs are, and why."""
        model = await self.repository.acquire(request.model, request.version)
        inputs, wanted = read_compared(request, model), read_comparison(request)
        take_hints(context, "priority", request.priority, request.timeout_ms / 1e3)
        async with run_compared(self.pipeline, self.workers, inputs, wanted, context) as found:
            answer = await self.workers.run(partial(write_comparison, found, inputs, model))
        write_timings(found.timings, answer.timings)
        return answer

    @rpc("model")
    async def Align(self, request: api.AlignRequest, context: RpcContext) -> api.AlignResponse:  # noqa: N802
        """Show which patch of an image answers to which word of a text."""
        model = await self.repository.acquire(request.model, request.version)
        towers, texts = find_towers(model), Texts((request.text,), request.truncate)
        take_hints(context, "priority", request.priority, request.timeout_ms / 1e3)
        check_image(request.image)
        async with run_aligned(self.pipeline, self.workers, towers, request.image, texts, context) as (found, response):
            answer = await self.workers.run(partial(write_map, found, model))
        write_timings(response.timings, answer.timings)
        return answer

    @streaming_rpc("model")
    async def Attend(self, request: api.AttendRequest, context: RpcContext) -> AsyncGenerator[api.AttendResponse]:  # noqa: N802
        """Show what a model attends to, one layer a message."""
        model = await self.repository.acquire(request.model, request.version)
        inputs: Texts | Images | Tensors
        kind = request.WhichOneof("input")
        tower = model.of_inputs(request.tensors.tensors if kind == "tensors" else (kind,))
        if kind == "tensors":
            read_prompt(request)
            inputs = await self._read_tensors(tower, request.tensors.tensors, context.received_bytes)
        else:
            inputs = read_content(request)
        take_hints(context, "priority", request.priority, request.timeout_ms / 1e3)
        attention = read_attention(request.attention)
        asked = InferenceRequest(tower, inputs, (), attention, layer_by_layer=True)
        async with self.pipeline.run(asked, context) as found:
            first = api.AttendResponse(
                attention=pb.Attention(**describe_positions(found)), truncated=found.prepared.truncated
            )
            messages = [first]  # no variable: the one that is being sent is let go of
            layers = write_layers_of(found, lambda: messages[0].attention.layers.add())
            write = partial(write_next, layers, found.timings)
            is_written = await self.workers.run(write)
            write_timings(found.timings, first.timings)
            del first
            while is_written:
                messages[0].model, messages[0].version = model.name, model.version
                context.account.hold("result", found.result.size_bytes)
                yield messages.pop()
                messages.append(api.AttendResponse())
                is_written = await self.workers.run(write)

    @streaming_rpc("model", computes_first=False)
    async def Generate(self, request: api.GenerateRequest, context: RpcContext) -> AsyncGenerator[api.GenerateResponse]:  # noqa: N802
        """Write a text, one token a message."""
        asked = await self._read_generation(request, context)
        events = self.generator.generate(asked, context, streams=True)
        async with aclosing(write_each(events, asked, self.workers, self.pipeline.attention.answer_bytes)) as messages:
            async for message in messages:
                yield message

    @rpc("model")
    async def GenerateText(self, request: api.GenerateRequest, context: RpcContext) -> api.GenerateTextResponse:  # noqa: N802
        """Write a text, all of it in one message."""
        asked = await self._read_generation(request, context)
        events = self.generator.generate(asked, context, streams=False)
        return await write_whole(events, asked, self.workers, self.pipeline.attention.answer_bytes)

    @rpc()
    async def ListModels(self, request: api.ListModelsRequest, context: RpcContext) -> api.ListModelsResponse:  # noqa: N802
        """Describe all models."""
        versions = [
            api.VersionState(model=entry.name, version=str(entry.version), state=entry.state, reason=entry.reason)
            for entry in await self.repository.index()
        ]
        return api.ListModelsResponse(models=[self._describe(one) for one in self.repository.all()], versions=versions)

    @rpc("model")
    async def GetModel(self, request: api.GetModelRequest, context: RpcContext) -> api.GetModelResponse:  # noqa: N802
        """Describe one model."""
        model = await self.repository.acquire(request.model, request.version)
        return api.GetModelResponse(model=self._describe(model))

    @rpc("model")
    async def LoadModel(self, request: api.LoadModelRequest, context: RpcContext) -> api.LoadModelResponse:  # noqa: N802
        """Serve a model as its folder now is."""
        await self.repository.load(request.model)
        return api.LoadModelResponse(model=self._describe(self.repository.find(request.model, "")))

    @rpc("model")
    async def UnloadModel(self, request: api.UnloadModelRequest, context: RpcContext) -> api.UnloadModelResponse:  # noqa: N802
        """Stop serving a model."""
        await self.repository.unload(request.model)
        return api.UnloadModelResponse()

    async def _read_generation(self, request: api.GenerateRequest, context: RpcContext) -> GenerationRequest:
        model = await self.repository.acquire(request.model, request.version, writes=True)
        take_hints(context, "priority", request.priority, request.timeout_ms / 1e3)
        return read_generation(request, model, context)

    async def _classify_by_candidates(
        self, request: api.ClassifyRequest, model: LoadedModel, count: int, context: RpcContext
    ) -> api.ClassifyResponse:
        """Read the labels first, with the tower for texts, and then the images."""
        wanted = read_candidates(request)
        towers = towers_for(wanted, model, self.pipeline.inputs)
        images = read_contents(request, self.pipeline.inputs.inputs)
        check_labels(count, len(images) if images else 1, wanted.names, self.pipeline.attention.answer_bytes)
        take_hints(context, "priority", request.priority, request.timeout_ms / 1e3)
        outputs = vector_outputs(towers.image)
        asked = read_request(request, towers.image, images or read_content(request), outputs)
        if asked.further_field:  # before any label is computed
            context.caller.require("attention", asked.further_field)
        labels = await read_labels(wanted, towers, self.pipeline, context.account)
        candidates = await compute_labels(self.pipeline, towers, wanted.names, labels, context)
        del labels
        asked = replace(asked, first_part=candidates.part)
        answer = api.ClassifyResponse(model=model.name, version=model.version)
        fill = partial(fill_candidates, candidates=candidates, count=count)
        if images:
            write_each = partial(fill_each, field=images.field, add=answer.results.add, fill=fill)
            return await self._run_each(asked, answer, write_each, context)
        return await self._run(asked, partial(fill, message=answer), context)

    async def _answer(
        self,
        request: Asked,
        model: LoadedModel,
        inputs: Texts | Images | Tensors,
        outputs: tuple[str, ...],
        write: Write[Answer],
        context: RpcContext,
    ) -> Answer:
        """Read a request, and run it."""
        take_hints(context, "priority", request.priority, request.timeout_ms / 1e3)
        return await self._run(read_request(request, model, inputs, outputs), write, context)

    async def _run(self, asked: InferenceRequest, write: Write[Answer], context: RpcContext) -> Answer:
        """Hand a request down the pipeline, and write what comes back."""
        async with self.pipeline.run(asked, context) as found:
            message = await self.workers.encode(partial(write, found), found.result.size_bytes)
        write_timings(found.timings, message.timings)
        return message

    async def _answer_each(
        self,
        request: OfMany | api.RankRequest,
        model: LoadedModel,
        inputs: Texts | Images,
        outputs: tuple[str, ...],
        answer: AnswerOfMany,
        write_each: Callable[[ManyResponses], None],
        context: RpcContext,
    ) -> AnswerOfMany:
        """Read a request of several inputs, and run it."""
        take_hints(context, "priority", request.priority, request.timeout_ms / 1e3)
        return await self._run_each(read_request(request, model, inputs, outputs), answer, write_each, context)

    async def _run_each(
        self,
        asked: InferenceRequest,
        answer: AnswerOfMany,
        write_each: Callable[[ManyResponses], None],
        context: RpcContext,
    ) -> AnswerOfMany:
        """Hand several inputs down the pipeline, and write what comes back of each."""
        async with self.pipeline.run_each(asked, context) as found:
            await self.workers.run(partial(write_each, found))
        write_timings(found.timings, answer.timings)
        return answer

    async def _read_tensors(self, model: LoadedModel, tensors: Named, size_bytes: int) -> Tensors:
        return Tensors(await self.workers.decode(lambda: read_tensors(tensors, model.contract), size_bytes))

    def _describe(self, model: LoadedModel) -> pb.Model:
        return describe_model(model, self.pipeline.inputs.rows, self.pipeline.inputs.inputs, self.device)
