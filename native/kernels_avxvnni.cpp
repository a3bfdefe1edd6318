#define GPT2LAB_KERNELS avxvnni_kernels
#define GPT2LAB_KERNELS_NAME "avxvnni"
#include "kernels.inl"
