#define GPT2LAB_KERNELS avx512vnni_kernels
#define GPT2LAB_KERNELS_NAME "avx512vnni"
#include "kernels.inl"
