"""Whether a server reads inputs in its caller's memory on the GPU, and writes outputs there (CudaSharedMemory)."""

import ctypes
from collections.abc import Iterator

import grpc
import numpy as np

from artifact.dtypes import Array, name_of
from bench.gpu.device_memory import check_cuda, load_cuda
from bench.gpu.inputs import apart, make_inputs
from bench.gpu.limits import limit_of
from bench.gpu.load import calling, make_request, served, serving
from bench.gpu.rows import Row, at_most, failed, skipped
from bench.gpu.setting import Part, Setting
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.api.open_inference.tensors import DATATYPE_OF
from server.errors import first_line

_HANDLE_BYTES = 64  # CUDA_IPC_HANDLE_SIZE
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind
_ROWS, _LENGTH, _ROOM_BYTES = 2, 8, 1 << 20


class OwnMemory:
    """A piece of the GPU's memory, with the handle that lets another process open it."""

    def __init__(self, gpu: int, byte_size: int) -> None:
        self.byte_size, self._library = byte_size, load_cuda()
        check_cuda(self._library.cudaSetDevice(gpu))
        self._address = ctypes.c_void_p()
        check_cuda(self._library.cudaMalloc(ctypes.byref(self._address), ctypes.c_size_t(byte_size)))
        handle = ctypes.create_string_buffer(_HANDLE_BYTES)
        check_cuda(self._library.cudaIpcGetMemHandle(handle, self._address))
        self.handle = handle.raw

    def write(self, content: bytes) -> None:
        """Copy to its beginning."""
        size = ctypes.c_size_t(len(content))
        check_cuda(self._library.cudaMemcpy(self._address, content, size, _TO_DEVICE))

    def read(self, byte_size: int) -> bytes:
        """Copy from its beginning."""
        content = ctypes.create_string_buffer(byte_size)
        check_cuda(self._library.cudaMemcpy(content, self._address, ctypes.c_size_t(byte_size), _TO_HOST))
        return content.raw


def check(setting: Setting) -> Iterator[Row]:
    """Ask with memory on the GPU, and compare with what the same server answers to bytes."""
    device, parts = setting.choose(), served(setting.parts())
    if device.gpu is None or not parts:
        yield skipped("all of it", "the CPU has none" if parts else "no artifact takes tensors of a plain size")
        return
    part, name = parts[0], f"{parts[0].name}, inputs and an output on the GPU"
    with serving(setting, [part], "--manage", "on") as one, calling(one) as call:
        expected = call(make_request(part, _ROWS, _LENGTH)).outputs[part.contract.outputs[0].name]
        with grpc.insecure_channel(one.address) as channel:
            try:
                content = ask(GRPCInferenceServiceStub(channel), part, device.gpu, len(expected.data))
            except Exception as error:  # CUDA's, or the server's
                yield failed(name, first_line(error))
                return
        found, answer = (np.frombuffer(each, np.float32) for each in (content, expected.data))
        yield at_most(name, apart(found, answer), limit_of(part.contract.precision, tf32=True))


def ask(stub: GRPCInferenceServiceStub, part: Part, gpu: int, answer_bytes: int) -> bytes:
    """Infer with regions for everything; returns what the server wrote."""
    request = pb.ModelInferRequest(model_name=part.model)
    held = list[OwnMemory]()
    for name, array in make_inputs(part.contract, _ROWS, _LENGTH).items():
        held.append(OwnMemory(gpu, max(array.nbytes, _ROOM_BYTES)))
        held[-1].write(array.tobytes())
        register(stub, name, held[-1], gpu)
        request.inputs.append(described(name, array))
    output = part.contract.outputs[0].name
    held.append(OwnMemory(gpu, max(answer_bytes, _ROOM_BYTES)))
    register(stub, f"out.{output}", held[-1], gpu)
    wanted = request.outputs.add(name=output)
    wanted.parameters["shared_memory_region"].string_param = f"out.{output}"
    wanted.parameters["shared_memory_byte_size"].int64_param = answer_bytes
    stub.ModelInfer(request, timeout=60)
    content = held[-1].read(answer_bytes)
    stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest(), timeout=60)
    return content


def register(stub: GRPCInferenceServiceStub, name: str, memory: OwnMemory, gpu: int) -> None:
    """Let the server open a piece of memory."""
    request = pb.CudaSharedMemoryRegisterRequest(
        name=name, raw_handle=memory.handle, device_id=gpu, byte_size=memory.byte_size
    )
    stub.CudaSharedMemoryRegister(request, timeout=60)


def described(name: str, array: Array) -> pb.ModelInferRequest.InferInputTensor:
    """An input whose content lies in the region of its name."""
    datatype = DATATYPE_OF[name_of(array.dtype)]
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=array.shape)
    tensor.parameters["shared_memory_region"].string_param = name
    tensor.parameters["shared_memory_byte_size"].int64_param = array.nbytes
    return tensor
