"""How callers register regions of memory."""

from server.api.handler import rpc
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.cuda_memory import CudaRegion, CudaRuntime
from server.api.open_inference.parts import Parts
from server.api.open_inference.shared_memory import SystemRegion
from server.context import RpcContext
from server.errors import Unimplemented


class MemoryManagement(Parts):
    """Registers, lists and forgets regions."""

    @rpc()
    async def SystemSharedMemoryStatus(  # noqa: N802
        self, request: pb.SystemSharedMemoryStatusRequest, context: RpcContext
    ) -> pb.SystemSharedMemoryStatusResponse:
        """List the registered regions."""
        response = pb.SystemSharedMemoryStatusResponse()
        for name, region in self.memory.regions(SystemRegion, request.name).items():
            status = response.regions[name]
            status.name, status.key = name, region.key
            status.offset, status.byte_size = region.offset, region.byte_size
        return response

    @rpc()
    async def SystemSharedMemoryRegister(  # noqa: N802
        self, request: pb.SystemSharedMemoryRegisterRequest, context: RpcContext
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Register a region."""
        key, offset, size = request.key, request.offset, request.byte_size
        self.memory.register(request.name, size, lambda: SystemRegion.open(key, offset, size))
        return pb.SystemSharedMemoryRegisterResponse()

    @rpc()
    async def SystemSharedMemoryUnregister(  # noqa: N802
        self, request: pb.SystemSharedMemoryUnregisterRequest, context: RpcContext
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Forget a region, or all."""
        self.memory.unregister(SystemRegion, request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    @rpc()
    async def CudaSharedMemoryStatus(  # noqa: N802
        self, request: pb.CudaSharedMemoryStatusRequest, context: RpcContext
    ) -> pb.CudaSharedMemoryStatusResponse:
        """List the registered regions of GPU memory."""
        response = pb.CudaSharedMemoryStatusResponse()
        for name, region in self.memory.regions(CudaRegion, request.name).items():
            status = response.regions[name]
            status.name, status.device_id, status.byte_size = name, region.device_id, region.byte_size
        return response

    @rpc()
    async def CudaSharedMemoryRegister(  # noqa: N802
        self, request: pb.CudaSharedMemoryRegisterRequest, context: RpcContext
    ) -> pb.CudaSharedMemoryRegisterResponse:
        """Register a region of GPU memory, where the server runs on a GPU."""
        if not self.has_cuda:
            raise Unimplemented("this server has no CUDA device; use system shared memory or raw contents")
        handle, device_id, size = request.raw_handle, request.device_id, request.byte_size
        runtime = CudaRuntime()
        self.memory.register(request.name, size, lambda: CudaRegion.open(handle, device_id, size, runtime))
        return pb.CudaSharedMemoryRegisterResponse()

    @rpc()
    async def CudaSharedMemoryUnregister(  # noqa: N802
        self, request: pb.CudaSharedMemoryUnregisterRequest, context: RpcContext
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """Forget a region of GPU memory, or all."""
        self.memory.unregister(CudaRegion, request.name)
        return pb.CudaSharedMemoryUnregisterResponse()
