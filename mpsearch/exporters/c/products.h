/* Sums of products for a tile of 8 output channels and some positions. Ways to the same integers,
   chosen when compiling: AVX2, and with VNNI; NEON, and with SDOT; plain C where none is there (or
   with -DMPS_PORTABLE).

   Weights lie in groups of 4 terms: 4 weights of the first channel, 4 of the second, ... A patch is
   the row of codes that one position multiplies with, less mps_patch_offset, which is `offset` or,
   where the products want unsigned codes, 0. No 32-bit sum overflows, as the export has proven;
   what fits 16 bits is said below. mps_products sets sums[position][channel], or adds to them; the
   codes in them are less `offset`. */
#ifndef MPS_PRODUCTS_H
#define MPS_PRODUCTS_H

#include "rescaling.h"

#define MPS_GROUP 4 /* terms */

#if defined(__AVX2__) && !defined(MPS_PORTABLE)
#include "lanes_avx2.h"
#ifdef MPS_DOT
#include "products_vnni.h"
#else
#include "products_avx2.h"
#endif
#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(MPS_PORTABLE)
#ifdef __ARM_FEATURE_DOTPROD
#include "products_sdot.h"
#else
#include "products_neon.h"
#endif
#else
#include "products_plain.h"
#endif

#endif
