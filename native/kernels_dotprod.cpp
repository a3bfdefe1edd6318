#define GPT2LAB_KERNELS dotprod_kernels
#define GPT2LAB_KERNELS_NAME "dotprod"
#include "kernels.inl"
