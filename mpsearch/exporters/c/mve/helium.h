/* What all kernels for Helium (MVE, Cortex-M55 and M85) share: loops over bytes, packed weights and
   codes as signed bytes. The loops are in assembly where GCC has no intrinsics for tail-predicated
   ones: these process 16 bytes at a time and nothing beyond `count`. */
#ifndef MPS_HELIUM_H
#define MPS_HELIUM_H

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O2", "omit-frame-pointer") /* also where firmware is built with -Os or -O0 \
                                                  */
#endif

#include <arm_mve.h>
#include "constants.h"

static inline int mps_at_most(int x, int limit) { return x < limit ? x : limit; }

/* `count` bytes, each with the bits of `flip` inverted. */
static inline MPS_INLINE void mps_copy(const void *from, int count, int flip, int8_t *to) {
    const int8x16_t bits = vdupq_n_s8((int8_t)flip);
    __asm__ volatile("wlstp.8 lr, %[count], 2f\n"
                     "1: vldrb.8 q0, [%[from]], #16\n"
                     "veor q0, q0, %q[bits]\n"
                     "vstrb.8 q0, [%[to]], #16\n"
                     "letp lr, 1b\n"
                     "2:"
                     : [from] "+r"(from), [to] "+r"(to)
                     : [count] "r"(count), [bits] "w"(bits)
                     : "lr", "q0", "memory");
}

static inline MPS_INLINE void mps_fill_bytes(int8_t *to, int count, int value) {
    const int8x16_t bytes = vdupq_n_s8((int8_t)value);
    __asm__ volatile("wlstp.8 lr, %[count], 2f\n"
                     "1: vstrb.8 %q[bytes], [%[to]], #16\n"
                     "letp lr, 1b\n"
                     "2:"
                     : [to] "+r"(to)
                     : [count] "r"(count), [bytes] "w"(bytes)
                     : "lr", "memory");
}

/* `count` codes from element `at` of a tensor on -> code - offset, where an offset of 128 turns the
   highest bit around. Packed codes begin with a whole byte. */
static MPS_APART void mps_take(const mps_layer *layer, const void *codes, size_t at, int count,
                               int8_t *to) {
    const uint8_t *from = (const uint8_t *)codes;
    if (layer->input_type == MPS_U8) {
        mps_copy(from + at, count, layer->offset, to);
    } else if (layer->input_type == MPS_U4 && at % 2 == 0) {
        for (from += at / 2; count > 0; count -= 16, from += 8, to += 16) {
            const uint16x8_t x = vldrbq_z_u16(from, vctp16q((uint32_t)(count + 1) / 2));
            const uint16x8_t both = vandq_u16(vsliq_n_u16(x, x, 4), vdupq_n_u16(0x0f0f));
            vstrbq_p_u8((uint8_t *)to, vreinterpretq_u8_u16(both), vctp8q((uint32_t)count));
        }
    } else if (layer->input_type == MPS_U2 && at % 4 == 0) {
        for (from += at / 4; count > 0; count -= 16, from += 4, to += 16) {
            uint32x4_t x = vldrbq_z_u32(from, vctp32q((uint32_t)(count + 3) / 4));
            x = vorrq_u32(x, vshlq_n_u32(x, 12));
            x = vandq_u32(vorrq_u32(x, vshlq_n_u32(x, 6)), vdupq_n_u32(0x03030303));
            vstrbq_p_u8((uint8_t *)to, vreinterpretq_u8_u32(x), vctp8q((uint32_t)count));
        }
    } else {
        for (int i = 0; i < count; i++)
            to[i] = (int8_t)(mps_get(codes, layer->input_type, at + (size_t)i) - layer->offset);
    }
}

#define MPS_UNPACKED_SLACK 64 /* bytes that mps_unpack writes beyond `count`, at most */

static inline MPS_INLINE void mps_unpack_4(int8x16_t x, int8_t *weights) {
    int8x16x2_t two;
    two.val[0] = vshrq_n_s8(vshlq_n_s8(x, 4), 4);
    two.val[1] = vshrq_n_s8(x, 4);
    vst2q_s8(weights, two);
}

static inline MPS_INLINE void mps_unpack_2(int8x16_t x, int8_t *weights) {
    int8x16x4_t four;
    four.val[0] = vshrq_n_s8(vshlq_n_s8(x, 6), 6);
    four.val[1] = vshrq_n_s8(vshlq_n_s8(x, 4), 6);
    four.val[2] = vshrq_n_s8(vshlq_n_s8(x, 2), 6);
    four.val[3] = vshrq_n_s8(x, 6);
    vst4q_s8(weights, four);
}

/* Codes whose first and last bits are in these bytes. */
static inline MPS_INLINE void mps_unpack_8(uint16x8_t low, uint16x8_t high, int16x8_t up, int bits,
                                           int8_t *weights) {
    const int16x8_t both = vreinterpretq_s16_u16(vsliq_n_u16(low, high, 8));
    vstrbq_s16(weights, vshlq_r_s16(vshlq_s16(both, up), bits - 16));
}

/* `count` weights of `bits` bits from the first one of a byte on -> signed bytes. */
static MPS_APART void mps_unpack(const uint8_t *packed, int bits, int count, int8_t *weights) {
    const int words = ((uintptr_t)weights & 3) == 0; /* what is interleaved is stored as words */
    if (bits == 8) {
        mps_copy(packed, count, 0, weights);
    } else if (bits == 4 && words) {
        for (; count >= 32; count -= 32, packed += 16, weights += 32)
            mps_unpack_4(vldrbq_s8((const int8_t *)packed), weights);
        if (count > 0)
            mps_unpack_4(vldrbq_z_s8((const int8_t *)packed, vctp8q((uint32_t)(count + 1) / 2)),
                         weights);
    } else if (bits == 2 && words) {
        for (; count >= 64; count -= 64, packed += 16, weights += 64)
            mps_unpack_2(vldrbq_s8((const int8_t *)packed), weights);
        if (count > 0)
            mps_unpack_2(vldrbq_z_s8((const int8_t *)packed, vctp8q((uint32_t)(count + 3) / 4)),
                         weights);
    } else { /* 8 codes are `bits` bytes; one is in two of them at most */
        const uint16x8_t start = vmulq_n_u16(vidupq_n_u16(0, 1), (uint16_t)bits);
        const uint16x8_t first = vshrq_n_u16(start, 3);
        const uint16x8_t last = vshrq_n_u16(vaddq_n_u16(start, (uint16_t)(bits - 1)), 3);
        /* to the top, and back with the sign */
        const int16x8_t up = vsubq_s16(vdupq_n_s16((int16_t)(16 - bits)),
                                       vreinterpretq_s16_u16(vandq_u16(start, vdupq_n_u16(7))));
        for (; count >= 8; count -= 8, packed += bits, weights += 8)
            mps_unpack_8(vldrbq_gather_offset_u16(packed, first),
                         vldrbq_gather_offset_u16(packed, last), up, bits, weights);
        if (count > 0) {
            const mve_pred16_t some = vctp16q((uint32_t)count);
            mps_unpack_8(vldrbq_gather_offset_z_u16(packed, first, some),
                         vldrbq_gather_offset_z_u16(packed, last, some), up, bits, weights);
        }
    }
}

#endif
