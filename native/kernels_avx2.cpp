#define GPT2LAB_KERNELS avx2_kernels
#define GPT2LAB_KERNELS_NAME "avx2"
#include "kernels.inl"
