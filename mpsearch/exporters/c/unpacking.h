/* Packed weights of 2 to 8 bits -> signed bytes; packed codes -> bytes. */
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

/* 4-bit codes, 16 at a time; how many were unpacked */
static inline int mps_spread_4(const unsigned char *packed, int count, unsigned char *codes) {
    const __m128i low = _mm_set1_epi8(15);
    int i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(packed + i / 2));
        const __m128i even = _mm_and_si128(bytes, low);
        const __m128i odd = _mm_and_si128(_mm_srli_epi16(bytes, 4), low);
        _mm_storeu_si128((__m128i *)(void *)(codes + i), _mm_unpacklo_epi8(even, odd));
    }
    return i;
}

/* 2-bit codes, 16 at a time */
static inline int mps_spread_2(const unsigned char *packed, int count, unsigned char *codes) {
    const __m128i low = _mm_set1_epi8(3);
    int i = 0;
    for (; i + 16 <= count; i += 16) {
        int32_t four;
        __m128i bytes, even, odd;
        memcpy(&four, packed + i / 4, 4);
        bytes = _mm_cvtsi32_si128(four);
        bytes = _mm_unpacklo_epi8(bytes, _mm_srli_epi16(bytes, 4)); /* codes 0 and 1, 2 and 3 */
        even = _mm_and_si128(bytes, low);
        odd = _mm_and_si128(_mm_srli_epi16(bytes, 2), low);
        _mm_storeu_si128((__m128i *)(void *)(codes + i), _mm_unpacklo_epi8(even, odd));
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

/* 4-bit codes, 16 at a time; how many were unpacked */
static inline int mps_spread_4(const unsigned char *packed, int count, unsigned char *codes) {
    int i = 0;
    for (; i + 16 <= count; i += 16) {
        const uint8x8_t bytes = vld1_u8(packed + i / 2);
        uint8x8x2_t both;
        both.val[0] = vand_u8(bytes, vdup_n_u8(15));
        both.val[1] = vshr_n_u8(bytes, 4);
        vst2_u8(codes + i, both);
    }
    return i;
}

/* 2-bit codes, 16 at a time */
static inline int mps_spread_2(const unsigned char *packed, int count, unsigned char *codes) {
    const uint8x8_t low = vdup_n_u8(3);
    int i = 0;
    for (; i + 16 <= count; i += 16) {
        uint32_t four;
        uint8x8_t bytes;
        uint8x8x2_t both;
        memcpy(&four, packed + i / 4, 4);
        bytes = vreinterpret_u8_u32(vdup_n_u32(four));
        bytes = vzip1_u8(bytes, vshr_n_u8(bytes, 4)); /* codes 0 and 1, 2 and 3 */
        both.val[0] = vand_u8(bytes, low);
        both.val[1] = vand_u8(vshr_n_u8(bytes, 2), low);
        vst2_u8(codes + i, both);
    }
    return i;
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

/* 4-bit codes; how many were unpacked */
static inline int mps_spread_4(const unsigned char *packed, int count, unsigned char *codes) {
    int i = 0;
    for (; i + 2 <= count; i += 2, packed++) {
        codes[i] = *packed & 15;
        codes[i + 1] = *packed >> 4;
    }
    return i;
}

/* 2-bit codes */
static inline int mps_spread_2(const unsigned char *packed, int count, unsigned char *codes) {
    int i = 0;
    for (; i + 4 <= count; i += 4, packed++) {
        codes[i] = *packed & 3;
        codes[i + 1] = *packed >> 2 & 3;
        codes[i + 2] = *packed >> 4 & 3;
        codes[i + 3] = *packed >> 6;
    }
    return i;
}

#endif

/* `count` packed codes from the first bits of a byte on -> a byte each. */
static void mps_spread(mps_type type, const unsigned char *packed, int count,
                       unsigned char *codes) {
    int i = 0;
    if (type == MPS_U4)
        i = mps_spread_4(packed, count, codes);
    else
        i = mps_spread_2(packed, count, codes);
    for (; i < count; i++)
        codes[i] = (unsigned char)mps_get(packed, type, (size_t)i);
}

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
