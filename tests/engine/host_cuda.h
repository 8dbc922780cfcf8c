// Enough of CUDA to run the kernels of preprocess.cu on the host, one thread after the other.
//
// It is read before them (g++ -include). The blocks run from the last to the first, so that a
// kernel that relies on their order fails.

#pragma once

#define __global__
#define __device__
#define __forceinline__ inline

struct Dim3 {
  unsigned x, y, z;
};

static thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;

typedef void Kernel(const unsigned char* staging, unsigned char* temp, unsigned char* output);

extern "C" Kernel resize_first, resize_second, place_views;

extern "C" void launch(Kernel* kernel, unsigned blocks, unsigned images, unsigned threads,
                       const unsigned char* staging, unsigned char* temp, unsigned char* output) {
  gridDim = {blocks, images, 1};
  blockDim = {threads, 1, 1};
  for (unsigned image = images; image-- > 0;) {
    for (unsigned block = blocks; block-- > 0;) {
      blockIdx = {block, image, 0};
      for (unsigned thread = 0; thread < threads; ++thread) {
        threadIdx = {thread, 0, 0};
        kernel(staging, temp, output);
      }
    }
  }
}
