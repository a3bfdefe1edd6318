#define GPT2LAB_KERNELS baseline_kernels
#define GPT2LAB_KERNELS_NAME "baseline"
#include "kernels.inl"
