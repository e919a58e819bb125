/* Sums of products for two output channels and one or two positions at a time.

   Codes are bytes as they lie in an image or a patch; the zero point's part is in `base`. Weights
   of 8, 4 or 2 bits are read where they are stored: words in turn for both channels, a word having
   one, two or four times four terms. Byte i of it holds terms i, i + 4, i + 8, i + 12 from its
   lowest bits up, so that a mask leaves four weights times 2^(8 - bits) beside each other, as their
   four codes lie. What does not fill words, other widths, and a last single channel are unpacked to
   such words of bytes before. */
#ifndef MPS_PAIRS_H
#define MPS_PAIRS_H

#include "dsp.h"

/* Sums of channels a and b at positions 0 and 1; what is read next; where the weights end that are
   done four words of codes at a time, and where all end. Assembly knows this order. */
typedef struct {
    uint32_t a0, a1, b0, b1;
    const unsigned char *w, *x0, *x1, *unrolled, *end;
} mps_sums;

/* `words` words of weights of each channel are next, from `w` on. */
static inline void mps_expect(mps_sums *s, int bits, const unsigned char *w, int words) {
    const int once = bits / 2; /* 1, 2, 4 words are four steps */
    s->w = w;
    s->unrolled = MPS_DSP && bits > 2 ? w + 8 * (words / once * once) : w;
    s->end = w + 8 * words;
}

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

static inline MPS_INLINE void mps_term(int bits, int up, int two, int i, mps_sums *s) {
    const int a = mps_field(bits, up, s->w + i), b = mps_field(bits, up, s->w + 4 + i);
    s->a0 += (uint32_t)(s->x0[i] * a), s->b0 += (uint32_t)(s->x0[i] * b);
    if (two)
        s->a1 += (uint32_t)(s->x1[i] * a), s->b1 += (uint32_t)(s->x1[i] * b);
}

static inline MPS_INLINE void mps_quad(int bits, int up, int two, mps_sums *s) {
    mps_term(bits, up, two, 0, s), mps_term(bits, up, two, 1, s);
    mps_term(bits, up, two, 2, s), mps_term(bits, up, two, 3, s);
    s->x0 += 4;
    if (two)
        s->x1 += 4;
}

/* `bits` and `two` are constants. */
static inline MPS_INLINE void mps_words(int bits, int two, mps_sums *sums) {
    mps_sums s = *sums;
    for (; s.w != s.end; s.w += 8) {
        if (bits == 2)
            mps_quad(2, 6, two, &s), mps_quad(2, 4, two, &s), mps_quad(2, 2, two, &s);
        if (bits == 4)
            mps_quad(4, 4, two, &s);
        mps_quad(bits, 0, two, &s);
    }
    *sums = s;
}

static MPS_APART void mps_words_8_2(mps_sums *s) { mps_words(8, 1, s); }
static MPS_APART void mps_words_8_1(mps_sums *s) { mps_words(8, 0, s); }
static MPS_APART void mps_words_4_2(mps_sums *s) { mps_words(4, 1, s); }
static MPS_APART void mps_words_4_1(mps_sums *s) { mps_words(4, 0, s); }
static MPS_APART void mps_words_2_2(mps_sums *s) { mps_words(2, 1, s); }
static MPS_APART void mps_words_2_1(mps_sums *s) { mps_words(2, 0, s); }

#endif

#endif
