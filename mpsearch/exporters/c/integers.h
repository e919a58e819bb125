/* Fixed-point arithmetic with one rounding, half to even, and access to stored integers.
   The definitions are those of mpsearch's docs/integer.md; no floating point, no allocation. */
#ifndef MPS_INTEGERS_H
#define MPS_INTEGERS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A loop that fares better with registers of its own; a function whose arguments are constants. */
#if defined(__GNUC__)
#define MPS_APART __attribute__((noinline))
#define MPS_INLINE __attribute__((always_inline))
#else
#define MPS_APART
#define MPS_INLINE
#endif

/* MPS_U4 and MPS_U2 are packed, the first code in the lowest bits of the first byte. */
typedef enum { MPS_U8, MPS_U16, MPS_I16, MPS_I32, MPS_U4, MPS_U2 } mps_type;

/* x / 2^n, |x| <= 2^62, 1 <= n <= 62; >> is arithmetic in every compiler we know of */
static inline int64_t mps_shift_round(int64_t x, int n) {
    return (x + ((INT64_C(1) << (n - 1)) - 1) + ((x >> n) & 1)) >> n;
}

/* x / d, d >= 1 */
static inline int64_t mps_divide_round(int64_t x, int64_t d) {
    int64_t q = x / d, r = x % d;
    if (r < 0) {
        r += d;
        q -= 1;
    }
    return q + (2 * r > d || (2 * r == d && (q & 1)));
}

/* x * multiplier / 2^(shift + pre_shift); x, after the pre-shift, fits 32 bits */
static inline int64_t mps_rescale(int64_t x, int32_t multiplier, int shift, int pre_shift) {
    if (pre_shift)
        x = mps_shift_round(x, pre_shift);
    return mps_shift_round(x * multiplier, shift);
}

static inline int32_t mps_clip(int64_t x, int32_t low, int32_t high) {
    return x < low ? low : x > high ? high : (int32_t)x;
}

/* Bytes of `count` elements. */
static inline size_t mps_bytes_of(mps_type type, size_t count) {
    switch (type) {
    case MPS_U4:
        return (count + 1) / 2;
    case MPS_U2:
        return (count + 3) / 4;
    case MPS_U8:
        return count;
    case MPS_I32:
        return 4 * count;
    default:
        return 2 * count;
    }
}

/* Bytes of one element of a type that is not packed. */
static inline size_t mps_size(mps_type type) {
    return type == MPS_U8 ? 1 : type == MPS_I32 ? 4 : 2;
}

static inline int mps_is_packed(mps_type type) { return type == MPS_U4 || type == MPS_U2; }

/* Codes of a packed type in a byte. */
static inline int mps_in_a_byte(mps_type type) { return type == MPS_U4 ? 2 : 4; }

/* Element `i`. memcpy, because the arena holds every type; compilers make one load of it. */
static inline int32_t mps_get(const void *data, mps_type type, size_t i) {
    const unsigned char *bytes = (const unsigned char *)data; /* for C++ */
    uint16_t u16;
    int16_t i16;
    int32_t i32;
    switch (type) {
    case MPS_U8:
        return bytes[i];
    case MPS_U4:
        return bytes[i / 2] >> (4 * (i % 2)) & 15;
    case MPS_U2:
        return bytes[i / 4] >> (2 * (i % 4)) & 3;
    case MPS_U16:
        memcpy(&u16, bytes + 2 * i, 2);
        return u16;
    case MPS_I16:
        memcpy(&i16, bytes + 2 * i, 2);
        return i16;
    default:
        memcpy(&i32, bytes + 4 * i, 4);
        return i32;
    }
}

static inline void mps_set(void *data, mps_type type, size_t i, int32_t value) {
    unsigned char *bytes = (unsigned char *)data;
    uint16_t u16 = (uint16_t)value;
    int16_t i16;
    switch (type) {
    case MPS_U8:
        bytes[i] = (unsigned char)value;
        break;
    case MPS_U4:
        bytes += i / 2;
        i = 4 * (i % 2);
        *bytes = (unsigned char)((*bytes & ~(15 << i)) | value << i);
        break;
    case MPS_U2:
        bytes += i / 4;
        i = 2 * (i % 4);
        *bytes = (unsigned char)((*bytes & ~(3 << i)) | value << i);
        break;
    case MPS_U16:
        memcpy(bytes + 2 * i, &u16, 2);
        break;
    case MPS_I16:
        i16 = (int16_t)value;
        memcpy(bytes + 2 * i, &i16, 2);
        break;
    default:
        memcpy(bytes + 4 * i, &value, 4);
    }
}

/* A real factor multiplier * 2^-shift. */
typedef struct {
    int32_t multiplier;
    int shift;
} mps_scale;

/* The factor of a channel: its float32 weight scale, given by its bits, times factor * 2^-exponent.
   `factor` has its highest bit set. Too small a product has multiplier 0, too large the largest. */
static inline mps_scale mps_factor(uint32_t bits, uint64_t factor, int exponent) {
    const uint32_t mantissa = (bits & 0x7fffff) | 0x800000;
    const uint64_t product = /* 55 or 56 bits */
        (uint64_t)mantissa * (uint32_t)(factor >> 32) +
        ((uint64_t)mantissa * (uint32_t)factor >> 32);
    const int drop = product >> 55 ? 25 : 24;
    const uint32_t half = UINT32_C(1) << (drop - 1), rest = (uint32_t)product & (2 * half - 1);
    uint32_t multiplier = (uint32_t)(product >> drop);
    int shift = 150 + exponent - (int)(bits >> 23) - 32 - drop;
    mps_scale scale = {0, 1};
    multiplier += rest > half || (rest == half && (multiplier & 1)); /* half to even */
    if (multiplier >> 31) {
        multiplier >>= 1;
        shift -= 1;
    }
    if (shift > 62)
        return scale;
    scale.multiplier = shift < 1 ? INT32_MAX : (int32_t)multiplier;
    scale.shift = shift < 1 ? 1 : shift;
    return scale;
}

/* Code `i` of `bits` bits: two's complement, no gaps, the first code in the lowest bits. */
static inline int32_t mps_weight(const uint8_t *packed, int bits, size_t i) {
    size_t start = i * (size_t)bits;
    int offset = (int)(start & 7);
    const uint8_t *byte = packed + (start >> 3);
    int32_t sign = INT32_C(1) << (bits - 1);
    uint32_t value = byte[0];
    if (offset + bits > 8)
        value |= (uint32_t)byte[1] << 8;
    if (offset + bits > 16)
        value |= (uint32_t)byte[2] << 16;
    value = (value >> offset) & ((UINT32_C(1) << bits) - 1);
    return (int32_t)(value ^ (uint32_t)sign) - sign;
}

#endif
