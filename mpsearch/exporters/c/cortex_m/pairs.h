/* Sums of products for two output channels and one or two positions at a time.

   Codes are bytes as they lie in an image or a patch; the zero point's part is in `base`. Weights
   of 8, 4 or 2 bits are read where they are stored: words in turn for both channels, a word having
   one, two or four times four terms. Byte i of it holds terms i, i + 4, i + 8, i + 12 from its
   lowest bits up, so that a mask leaves four weights times 2^(8 - bits) beside each other, as their
   four codes lie. What does not fill words, other widths, and a last single channel are unpacked to
   such words of bytes before. */
#ifndef MPS_PAIRS_H
#define MPS_PAIRS_H

#include "finishing.h"

/* Sums of channels a and b at positions 0 and 1, from these on; the weights and the codes of
   position 0 that are next, and how far those of position 1 are; where weights end that are done
   four words of codes at a time, and where all end. Where `times` is not 0, so many times two
   positions go on to bytes: see mps_fused. Assembly knows this order. */
typedef struct {
    uint32_t a0, a1, b0, b1;
    const unsigned char *w, *x;
    size_t row;
    const unsigned char *unrolled, *end;
    int times;
    mps_channel a, b;
    uint32_t above, both, low; /* four times 255 - high, that + low, low */
    unsigned char *to;
    size_t stride;
    uint32_t base_a, base_b; /* weights of less than 8 bits: added at the end */
} mps_sums;

/* `words` words of weights of each channel are next, from `w` on. */
static inline void mps_expect(mps_sums *s, int bits, const unsigned char *w, int words) {
    const int once = bits / 2; /* 1, 2, 4 words are four steps */
    s->w = w;
    s->unrolled = MPS_DSP && bits > 2 ? w + 8 * (words / once * once) : w;
    s->end = w + 8 * words;
}

/* Whether functions for two positions can make bytes of their sums. */
#define mps_fused (MPS_DSP_ASSEMBLY)

#if defined(__thumb2__) && defined(__GNUC__) && !defined(MPS_PORTABLE)
#include "pairs_thumb2.h"
#elif defined(__thumb__) && defined(__GNUC__) && !defined(MPS_PORTABLE)
#include "pairs_armv6m.h"
#else

/* Without DSP weights are those numbers themselves. */
static inline MPS_INLINE int mps_field(int bits, int up, const unsigned char *byte) {
    const int32_t top = (int32_t)((uint32_t)*byte << (24 + up));
    return MPS_DSP ? (top >> (32 - bits)) * (1 << (8 - bits)) : top >> (32 - bits);
}

/* `bits` and `two` are constants. */
static inline MPS_INLINE void mps_words(int bits, int two, mps_sums *sums) {
    uint32_t a0 = sums->a0, a1 = sums->a1, b0 = sums->b0, b1 = sums->b1;
    const unsigned char *w = sums->w, *x = sums->x;
    for (; w != sums->end; w += 8)
        for (int up = 8 - bits; up >= 0; up -= bits)
            for (int i = 0; i < 4; i++, x++) {
                const int a = mps_field(bits, up, w + i), b = mps_field(bits, up, w + 4 + i);
                a0 += (uint32_t)(*x * a), b0 += (uint32_t)(*x * b);
                if (two)
                    a1 += (uint32_t)(x[sums->row] * a), b1 += (uint32_t)(x[sums->row] * b);
            }
    sums->a0 = a0, sums->a1 = a1, sums->b0 = b0, sums->b1 = b1, sums->x = x;
}

static MPS_APART void mps_words_8_2(mps_sums *s) { mps_words(8, 1, s); }
static MPS_APART void mps_words_8_1(mps_sums *s) { mps_words(8, 0, s); }
#ifndef MPS_WITHOUT_4
static MPS_APART void mps_words_4_2(mps_sums *s) { mps_words(4, 1, s); }
static MPS_APART void mps_words_4_1(mps_sums *s) { mps_words(4, 0, s); }
#endif
#ifndef MPS_WITHOUT_2
static MPS_APART void mps_words_2_2(mps_sums *s) { mps_words(2, 1, s); }
static MPS_APART void mps_words_2_1(mps_sums *s) { mps_words(2, 0, s); }
#endif

#endif

#endif
