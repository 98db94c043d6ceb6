"""Regions of CUDA memory of other processes, opened by their handles; registered as shared memory where there is a GPU.

Inputs are copied to the host and outputs back to the device, once each: the batch that they join is made on the host.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from server.engine.capture_gate import GATE
from server.errors import InvalidInput, NotPossible

_LIBRARIES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
_HANDLE_BYTES = 64  # CUDA_IPC_HANDLE_SIZE
_LAZY_PEER_ACCESS = 1  # cudaIpcMemLazyEnablePeerAccess
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind


class Runtime(Protocol):
    """What is needed of the CUDA runtime; every method raises NotPossible with CUDA's error."""

    def open(self, handle: bytes, device_id: int) -> int:
        """Open another process's memory; returns its address on the device."""
        ...

    def close(self, address: int, device_id: int) -> None:
        """Close it."""
        ...

    def read(self, address: int, byte_size: int, device_id: int) -> bytes:
        """Copy to the host."""
        ...

    def write(self, address: int, content: bytes, device_id: int) -> None:
        """Copy to the device."""
        ...


@dataclass(frozen=True)
class CudaRegion:
    """Another process's memory on a GPU, from its beginning."""

    device_id: int
    byte_size: int
    address: int
    runtime: Runtime

    @classmethod
    def open(cls, handle: bytes, device_id: int, byte_size: int, runtime: Runtime) -> "CudaRegion":
        """Open the memory of a handle.

        Raises:
            InvalidInput: It is no handle.
            NotPossible: CUDA cannot open it.
        """
        if len(handle) != _HANDLE_BYTES:
            raise InvalidInput("raw_handle", f"{len(handle)} bytes", f"{_HANDLE_BYTES}, a cudaIpcMemHandle_t")
        if device_id < 0:
            raise InvalidInput("device_id", device_id, "not negative")
        return cls(device_id, byte_size, runtime.open(handle, device_id), runtime)

    def read(self, offset: int, byte_size: int) -> bytes:
        """See shared_memory.Region."""
        return self.runtime.read(self.address + offset, byte_size, self.device_id)

    def write(self, offset: int, content: bytes) -> bool:
        """See shared_memory.Region."""
        self.runtime.write(self.address + offset, content, self.device_id)
        return True

    def close(self) -> None:
        """See shared_memory.Region."""
        self.runtime.close(self.address, self.device_id)


class _Handle(ctypes.Structure):
    _fields_ = (("reserved", ctypes.c_char * _HANDLE_BYTES),)


class CudaRuntime:
    """libcudart, which ONNX Runtime has loaded or the system has."""

    def __init__(self) -> None:
        """Load it.

        Raises:
            NotPossible: It is not there.
        """
        for name in _LIBRARIES:
            try:
                self._library = ctypes.CDLL(name)
            except OSError:
                continue
            self._library.cudaIpcOpenMemHandle.argtypes = (ctypes.POINTER(ctypes.c_void_p), _Handle, ctypes.c_uint)
            self._library.cudaIpcCloseMemHandle.argtypes = (ctypes.c_void_p,)
            self._library.cudaMemcpy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
            self._library.cudaGetErrorString.restype = ctypes.c_char_p
            return
        raise NotPossible(f"raw_handle: none of {', '.join(_LIBRARIES)} can be loaded")

    def open(self, handle: bytes, device_id: int) -> int:
        """See Runtime."""
        address = ctypes.c_void_p()
        given = _Handle.from_buffer_copy(handle)
        with self._using(device_id):
            self._check(self._library.cudaIpcOpenMemHandle(ctypes.byref(address), given, _LAZY_PEER_ACCESS))
        return address.value or 0

    def close(self, address: int, device_id: int) -> None:
        """See Runtime."""
        with self._using(device_id):
            self._check(self._library.cudaIpcCloseMemHandle(address))

    def read(self, address: int, byte_size: int, device_id: int) -> bytes:
        """See Runtime."""
        content = ctypes.create_string_buffer(byte_size)
        with self._using(device_id):
            self._check(self._library.cudaMemcpy(content, address, byte_size, _TO_HOST))
        return content.raw

    def write(self, address: int, content: bytes, device_id: int) -> None:
        """See Runtime."""
        with self._using(device_id):
            self._check(self._library.cudaMemcpy(address, content, len(content), _TO_DEVICE))

    @contextmanager
    def _using(self, device_id: int) -> Iterator[None]:
        with GATE.use():
            self._check(self._library.cudaSetDevice(device_id))
            yield

    def _check(self, error: int) -> None:
        if error:
            raise NotPossible(f"raw_handle: CUDA says: {self._library.cudaGetErrorString(error).decode()}")
