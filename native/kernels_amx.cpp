#define GPT2LAB_KERNELS amx_kernels
#define GPT2LAB_KERNELS_NAME "amx"
#include "kernels.inl"
