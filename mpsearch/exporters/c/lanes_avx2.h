/* Vectors of sums that loops with AVX2 add to, and the dot products of VNNI. */
#ifndef MPS_LANES_AVX2_H
#define MPS_LANES_AVX2_H

#include <immintrin.h>

/* Sums that loops add to. With the type of the instruction that adds, for gcc moves them twice in
   every turn if they have another one. */
#ifdef __GNUC__
typedef int mps_lanes __attribute__((vector_size(32)));
typedef short mps_halves __attribute__((vector_size(32)));
#define MPS_ADD(sums, x) (sums) += (__typeof__(sums))(x)
#define MPS_ADD_HALVES MPS_ADD
#define MPS_VECTOR(sums) ((__m256i)(sums))
#define MPS_LANES(vector) ((mps_lanes)(vector))
#else
typedef __m256i mps_lanes, mps_halves;
#define MPS_ADD(sums, x) (sums) = _mm256_add_epi32(sums, x)
#define MPS_ADD_HALVES(sums, x) (sums) = _mm256_add_epi16(sums, x)
#define MPS_VECTOR(sums) (sums)
#define MPS_LANES(vector) (vector)
#endif

/* Sums + 4 products of unsigned codes and signed weights, where the processor has that (VNNI). */
#if defined(__GNUC__) && defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define MPS_DOT _mm256_dpbusd_epi32
#elif defined(__GNUC__) && defined(__AVXVNNI__)
#define MPS_DOT _mm256_dpbusd_avx_epi32
#endif
#ifdef MPS_DOT
static inline MPS_INLINE mps_lanes mps_dot(mps_lanes sums, __m256i codes, __m256i weights) {
    return (mps_lanes)MPS_DOT((__m256i)sums, codes, weights);
}
#endif

#endif
