/* CUDA's runtime, driver, cuBLAS and cuDNN without a GPU: memory and copies are real, kernels do nothing.

   With it ONNX Runtime's own CUDA provider can be loaded and run on any machine, to see where it puts nodes, what it
   refuses and when it copies. What it computes is nonsense. Functions that are not here are made by cuda_stub.py and
   return success. Offsets in cudaDeviceProp are those of CUDA 13. */

#include <stdlib.h>
#include <string.h>

typedef void *Pointer;
typedef size_t Size;

static int something[64];

static int give(Pointer *made) { *made = something; return 0; }
static int take(Pointer *made, Size bytes) { *made = calloc(1, bytes ? bytes : 1); return 0; }
static int drop(Pointer made) { free(made); return 0; }
static int copy(Pointer to, const void *from, Size bytes) { memcpy(to, from, bytes); return 0; }

int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDevicePrimaryCtxRetain(Pointer *made, int device) { return give(made); }
int cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
int cuCtxPushCurrent_v2(Pointer context) { return 0; }
int cuCtxPopCurrent_v2(Pointer *context) { return give(context); }
int cuMemGetInfo_v2(Size *left, Size *total) { *left = *total = (Size)8 << 30; return 0; }

int cudaMalloc(Pointer *made, Size bytes) { return take(made, bytes); }
int cudaMallocHost(Pointer *made, Size bytes) { return take(made, bytes); }
int cudaHostAlloc(Pointer *made, Size bytes, unsigned flags) { return take(made, bytes); }
int cudaMallocFromPoolAsync(Pointer *made, Size bytes, Pointer pool, Pointer stream) { return take(made, bytes); }
int cudaFree(Pointer made) { return drop(made); }
int cudaFreeHost(Pointer made) { return drop(made); }
int cudaFreeAsync(Pointer made, Pointer stream) { return drop(made); }
int cudaMemcpy(Pointer to, const void *from, Size bytes, int kind) { return copy(to, from, bytes); }
int cudaMemcpyAsync(Pointer to, const void *from, Size bytes, int kind, Pointer stream) { return copy(to, from, bytes); }
int cudaMemcpyFromSymbol(Pointer to, const void *from, Size bytes, Size offset, int kind) { memset(to, 0, bytes); return 0; }
int cudaMemset(Pointer to, int value, Size bytes) { memset(to, value, bytes); return 0; }
int cudaMemsetAsync(Pointer to, int value, Size bytes, Pointer stream) { memset(to, value, bytes); return 0; }
int cudaMemcpy2DAsync(char *to, Size to_pitch, const char *from, Size from_pitch, Size width, Size height, int kind,
                      Pointer stream) {
  for (Size row = 0; row < height; row++) memcpy(to + row * to_pitch, from + row * from_pitch, width);
  return 0;
}

int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : 1024; /* compute capability 9.0 */
  return 0;
}
int cudaGetDeviceProperties(char *properties, int device) {
  memset(properties, 0, 600);
  strcpy(properties, "stub");
  *(Size *)(properties + 288) = (Size)8 << 30; /* totalGlobalMem */
  *(Size *)(properties + 296) = 49152;         /* sharedMemPerBlock */
  *(int *)(properties + 304) = 65536;          /* regsPerBlock */
  *(int *)(properties + 308) = 32;             /* warpSize */
  *(int *)(properties + 320) = 1024;           /* maxThreadsPerBlock */
  *(int *)(properties + 360) = 9;              /* major */
  return 0;
}
int cudaMemGetInfo(Size *left, Size *total) { *left = *total = (Size)8 << 30; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaPointerGetAttributes(int *attributes, const void *pointer) { attributes[0] = 2; attributes[1] = 0; return 0; }
int cudaGetDriverEntryPointByVersion(const char *name, Pointer *found, unsigned version, unsigned long long flags, int *status) {
  *found = 0;
  if (status) *status = 1;
  return 0;
}

int cudaEventCreate(Pointer *made) { return give(made); }
int cudaEventCreateWithFlags(Pointer *made, unsigned flags) { return give(made); }
int cudaEventElapsedTime(float *milliseconds, Pointer start, Pointer end) { *milliseconds = 1; return 0; }
int cudaStreamCreate(Pointer *made) { return give(made); }
int cudaStreamCreateWithFlags(Pointer *made, unsigned flags) { return give(made); }
int cudaStreamIsCapturing(Pointer stream, int *status) { *status = 0; return 0; }
static int captures, replays; /* what a test may ask for */
int stub_captures(void) { return captures; }
int stub_replays(void) { return replays; }
int cudaStreamEndCapture(Pointer stream, Pointer *made) { captures++; return give(made); }
int cudaGraphInstantiate(Pointer *made, Pointer graph, unsigned long long flags) { return give(made); }
int cudaGraphLaunch(Pointer graph, Pointer stream) { replays++; return 0; }
int cudaMemPoolCreate(Pointer *made, const void *properties) { return give(made); }
int cudaLaunchHostFunc(Pointer stream, void (*run)(Pointer), Pointer data) { run(data); return 0; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *kernel, int size, Size bytes, unsigned flags) {
  *blocks = 1;
  return 0;
}
const char *cudaGetErrorString(int error) { return "stub"; }
const char *cudaGetErrorName(int error) { return "stub"; }

Pointer *__cudaRegisterFatBinary(Pointer binary) { static Pointer handle; return &handle; }
int __cudaGetKernel(Pointer *kernel, Pointer entry) { *kernel = entry; return 0; }
int __cudaPopCallConfiguration(unsigned *grid, unsigned *block, Size *bytes, Pointer *stream) {
  for (int axis = 0; axis < 3; axis++) grid[axis] = block[axis] = 1;
  *bytes = 0;
  *stream = 0;
  return 0;
}

int cublasCreate_v2(Pointer *made) { return give(made); }
int cublasGetMathMode(Pointer handle, int *mode) { *mode = 0; return 0; }
const char *cublasGetStatusName(int status) { return "stub"; }
const char *cublasGetStatusString(int status) { return "stub"; }
int cublasLtCreate(Pointer *made) { return give(made); }
int cublasLtMatmulDescCreate(Pointer *made, int compute, int scale) { return give(made); }
int cublasLtMatmulPreferenceCreate(Pointer *made) { return give(made); }
int cublasLtMatrixLayoutCreate(Pointer *made, int type, Size rows, Size columns, Size stride) { return give(made); }
int cublasLtMatrixTransformDescCreate(Pointer *made, int scale) { return give(made); }
int cublasLtMatmulAlgoGetHeuristic(Pointer a, Pointer b, Pointer c, Pointer d, Pointer e, Pointer f, Pointer g, int asked,
                                   Pointer results, int *found) {
  *found = 1;
  return 0;
}

Size cudnnGetVersion(void) { return 91000; }
const char *cudnnGetErrorString(int status) { return "stub"; }
void cudnnGetLastErrorString(char *text, Size bytes) { text[0] = 0; }
int cudnnCreate(Pointer *made) { return give(made); }
int cudnnCreateTensorDescriptor(Pointer *made) { return give(made); }
int cudnnCreateReduceTensorDescriptor(Pointer *made) { return give(made); }
int cudnnGetReductionWorkspaceSize(Pointer a, Pointer b, Pointer c, Pointer d, Size *bytes) { *bytes = 64; return 0; }
int cudnnGetReductionIndicesSize(Pointer a, Pointer b, Pointer c, Pointer d, Size *bytes) { *bytes = 64; return 0; }
int cudnnGetStream(Pointer handle, Pointer *stream) { *stream = 0; return 0; }
