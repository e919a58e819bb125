/* Packed codes of 2 to 8 bits -> signed bytes. */
#ifndef MPS_UNPACKING_H
#define MPS_UNPACKING_H

#include "integers.h"

#if defined(__AVX2__) && !defined(MPS_PORTABLE)
#include <immintrin.h>

/* 4-bit weights, 32 at a time; how many were unpacked */
static int mps_unpack_4(const uint8_t *packed, int count, int8_t *weights) {
    const __m128i low = _mm_set1_epi8(15), sign = _mm_set1_epi8(8);
    int i = 0;
    for (; i + 32 <= count; i += 32) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(packed + i / 2));
        const __m128i even = _mm_and_si128(bytes, low);
        const __m128i odd = _mm_and_si128(_mm_srli_epi16(bytes, 4), low);
        const __m128i first = _mm_unpacklo_epi8(even, odd), second = _mm_unpackhi_epi8(even, odd);
        _mm_storeu_si128((__m128i *)(void *)(weights + i),
                         _mm_sub_epi8(_mm_xor_si128(first, sign), sign));
        _mm_storeu_si128((__m128i *)(void *)(weights + i + 16),
                         _mm_sub_epi8(_mm_xor_si128(second, sign), sign));
    }
    return i;
}

#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(MPS_PORTABLE)
#include <arm_neon.h>

static inline void mps_unpack_32(const uint8_t *packed, int8_t *weights) {
    const int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(packed));
    int8x16x2_t both;
    both.val[0] = vshrq_n_s8(vshlq_n_s8(bytes, 4), 4);
    both.val[1] = vshrq_n_s8(bytes, 4);
    vst2q_s8(weights, both);
}

/* 4-bit weights, 32 at a time; how many were unpacked */
static int mps_unpack_4(const uint8_t *packed, int count, int8_t *weights) {
    const int8_t *start = weights, *end = weights + count / 128 * 128;
    for (; weights != end; packed += 64) {
        mps_unpack_32(packed, weights), weights += 32;
        mps_unpack_32(packed + 16, weights), weights += 32;
        mps_unpack_32(packed + 32, weights), weights += 32;
        mps_unpack_32(packed + 48, weights), weights += 32;
    }
    for (end += count % 128 / 32 * 32; weights != end; packed += 16, weights += 32)
        mps_unpack_32(packed, weights);
    for (end += count % 32 / 8 * 8; weights != end; packed += 4, weights += 8) {
        int32_t four;
        int8x8_t bytes;
        memcpy(&four, packed, 4);
        bytes = vreinterpret_s8_s32(vdup_n_s32(four));
        vst1_s8(weights, vzip1_s8(vshr_n_s8(vshl_n_s8(bytes, 4), 4), vshr_n_s8(bytes, 4)));
    }
    return (int)(weights - start);
}

#else

/* 4-bit weights; how many were unpacked */
static int mps_unpack_4(const uint8_t *packed, int count, int8_t *weights) {
    int i = 0;
    for (; i + 1 < count; i += 2) {
        weights[i] = (int8_t)((packed[i / 2] & 15) ^ 8) - 8;
        weights[i + 1] = (int8_t)((packed[i / 2] >> 4) ^ 8) - 8;
    }
    return i;
}

#endif

/* Weights start ... start + count - 1 as 8-bit integers. */
static void mps_unpack(const uint8_t *packed, int bits, size_t start, int count, int8_t *weights) {
    int i = 0;
    if (bits == 8) {
        memcpy(weights, packed + start, (size_t)count);
        return;
    }
    if (start % 8 == 0) {
        const uint8_t *bytes = packed + start / 8 * (size_t)bits;
        const int sign = 1 << (bits - 1), mask = 2 * sign - 1;
        if (bits == 4)
            i = mps_unpack_4(bytes, count, weights);
        for (bytes += i / 8 * bits; i + 8 <= count; i += 8, bytes += bits) {
            uint64_t eight = 0; /* 8 codes are `bits` bytes */
            for (int k = 0; k < bits; k++)
                eight |= (uint64_t)bytes[k] << (8 * k);
            for (int k = 0; k < 8; k++, eight >>= bits)
                weights[i + k] = (int8_t)((((int)eight & mask) ^ sign) - sign);
        }
    }
    for (; i < count; i++)
        weights[i] = (int8_t)mps_weight(packed, bits, start + (size_t)i);
}

#endif
