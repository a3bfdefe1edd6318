#define GPT2LAB_KERNELS avx512_kernels
#define GPT2LAB_KERNELS_NAME "avx512"
#include "kernels.inl"
