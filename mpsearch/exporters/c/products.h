/* Sums of products for a tile of 8 output channels and some positions. Three ways to the same
   integers, chosen when compiling: AVX2, NEON, and plain C where neither is there (or with
   -DMPS_PORTABLE).

   Weights lie in groups of 4 terms: 4 weights of the first channel, 4 of the second, ... A patch is
   the row of codes - offset that one position multiplies with. No 32-bit sum overflows, as the
   export has proven; what fits 16 bits is said below. mps_products sets sums[position][channel], or
   adds to them. */
#ifndef MPS_PRODUCTS_H
#define MPS_PRODUCTS_H

#include "rescaling.h"

#define MPS_GROUP 4 /* terms */

#if defined(__AVX2__) && !defined(MPS_PORTABLE)
#include "products_avx2.h"
#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(MPS_PORTABLE)
#include "products_neon.h"
#else
#include "products_plain.h"
#endif

#endif
