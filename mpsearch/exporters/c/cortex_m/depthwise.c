/* Depthwise convolution, 16 channels at a time, four at once: their codes at two taps are words of
   the image, whose bytes are paired tap with tap. Taps beyond the image read padding that lies in
   the scratch; no line is copied. */
#include "finishing.h"

#define CHANNELS 16
#define MOST_TAPS 64

static int at_most(int x, int limit) { return x < limit ? x : limit; }

/* Where the taps of a position lie, in bytes from its first one, `base`. */
typedef struct {
    const mps_convolution *c;
    const unsigned char *image, *padding;
    int taps, place; /* an even number of taps for DSP; bytes of a place of the image */
    int first;       /* channel */
    int32_t *inside, *here;
} window;

/* Those of a position of which some lie outside: line `sy`, column `left` is the first tap. */
static MPS_APART const int32_t *taps_at(const window *w, int sy, int left,
                                        const unsigned char *base) {
    const mps_convolution *c = w->c;
    const int32_t outside = (int32_t)(w->padding - base);
    const int32_t *inside = w->inside;
    const int across = c->dilation_x, width = c->width;
    int32_t *to = w->here;
    for (int ky = 0; ky < c->kernel_height; ky++, sy += c->dilation_y) {
        const int end = left + c->kernel_width * across;
        const int most = sy < 0 || sy >= c->height ? 0 : width; /* columns of the line */
        for (int sx = left; sx < end; sx += across) {
            const int32_t place = *inside++;
            *to++ = (unsigned)sx < (unsigned)most ? place : outside;
        }
    }
    if (to != w->here + w->taps)
        *to = to[-1]; /* has no weight */
    return w->here;
}

/* Codes k ... k + 3 at a place, `count` of which there are. */
static inline MPS_INLINE uint32_t codes_at(mps_type type, const unsigned char *place, int k,
                                           int count) {
    uint32_t word = 0;
    if (type == MPS_U8 && count >= 4)
        return mps_load_word(place + k);
    if (type == MPS_U4 && count >= 4) {
        word = place[k / 2] | (uint32_t)place[k / 2 + 1] << 16;
        return (word | word << 4) & 0x0f0f0f0f;
    }
    if (type == MPS_U2 && count >= 4) {
        word = place[k / 4];
        word = (word | word << 12) & 0x000f000f;
        return (word | word << 6) & 0x03030303;
    }
    for (int i = 0; i < at_most(4, count); i++)
        word |= (uint32_t)mps_get(place, type, (size_t)(k + i)) << (8 * i);
    return word;
}

/* A block of channels: all that one position needs. */
typedef struct {
    const mps_layer *layer;
    mps_type type; /* of the input */
    int count, taps, raise;
    int bytes;   /* results of one byte without a sum */
    int clipped; /* by less than a byte */
    int low, high;
    const void *addend;
    void *output;
    int32_t base[CHANNELS];
    mps_channel channels[CHANNELS];
} block;

/* Sums of four channels. */
typedef struct {
    uint32_t a, b, c, d;
} four;

#if MPS_DSP
typedef uint32_t weight; /* of two taps, as halfwords; four channels, then two more taps of these */

static void unpack(const mps_layer *layer, int first, int count, int taps, int padded, weight *to) {
    mps_reader codes = mps_reader_at(layer, (size_t)first * (size_t)taps);
    const int pairs = padded / 2;
    for (int i = 0; i < 4 * pairs * ((count + 3) / 4); i++)
        to[i] = 0;
    for (int t = 0; t < taps; t++)
        for (int i = 0; i < count; i++)
            to[(i / 4 * pairs + t / 2) * 4 + i % 4] |= ((uint32_t)mps_next(&codes) & 0xffff)
                                                       << 16 * (t % 2);
}

#if MPS_DSP_ASSEMBLY
/* 17 instructions for two taps of four channels. */
static inline MPS_INLINE four add_taps(four s, const unsigned char *base, const int32_t *places,
                                       int taps, const weight *w) {
    const int32_t *end = places + taps;
    uint32_t x, y, u, v, l;
    __asm__ volatile(
        "1:\n\t"
        "ldrd %[u], %[v], [%[places]], #8\n\t"
        "ldr %[u], [%[base], %[u]]\n\t"
        "ldr %[v], [%[base], %[v]]\n\t"
        "pkhbt %[x], %[u], %[v], lsl #16\n\t"
        "pkhtb %[y], %[v], %[u], asr #16\n\t"
        "ldrd %[u], %[v], [%[w]], #8\n\t"
        "uxtb16 %[l], %[x]\n\t"
        "uxtb16 %[x], %[x], ror #8\n\t"
        "smlad %[a], %[u], %[l], %[a]\n\t"
        "smlad %[b], %[v], %[x], %[b]\n\t"
        "ldrd %[u], %[v], [%[w]], #8\n\t"
        "uxtb16 %[l], %[y]\n\t"
        "uxtb16 %[y], %[y], ror #8\n\t"
        "smlad %[c], %[u], %[l], %[c]\n\t"
        "smlad %[d], %[v], %[y], %[d]\n\t"
        "cmp %[places], %[end]\n\t"
        "bne 1b"
        : [a] "+r"(s.a), [b] "+r"(s.b), [c] "+r"(s.c), [d] "+r"(s.d), [places] "+r"(places),
          [w] "+r"(w), [x] "=&r"(x), [y] "=&r"(y), [u] "=&r"(u), [v] "=&r"(v), [l] "=&r"(l)
        : [base] "r"(base), [end] "r"(end)
        : "memory", "cc");
    return s;
}
#define add_bytes add_taps
#endif

static inline MPS_INLINE four add_any(four s, mps_type type, const unsigned char *base, int k,
                                      int count, const int32_t *places, int taps, const weight *w) {
    for (int t = 0; t < taps; t += 2, w += 4) {
        const uint32_t x = codes_at(type, base + places[t], k, count);
        const uint32_t y = codes_at(type, base + places[t + 1], k, count);
        const uint32_t lower = mps_lower(x, y), upper = mps_higher(x, y);
        s.a = mps_dual(mps_even(lower), w[0], s.a), s.b = mps_dual(mps_odd(lower), w[1], s.b);
        s.c = mps_dual(mps_even(upper), w[2], s.c), s.d = mps_dual(mps_odd(upper), w[3], s.d);
    }
    return s;
}

#else
typedef int8_t weight; /* of a tap: four channels, then the next tap of these */

static void unpack(const mps_layer *layer, int first, int count, int taps, int padded, weight *to) {
    mps_reader codes = mps_reader_at(layer, (size_t)first * (size_t)taps);
    for (int t = 0; t < taps; t++)
        for (int i = 0; i < count; i++)
            to[(i / 4 * padded + t) * 4 + i % 4] = (weight)mps_next(&codes);
}

static inline MPS_INLINE four add_any(four s, mps_type type, const unsigned char *base, int k,
                                      int count, const int32_t *places, int taps, const weight *w) {
    for (int t = 0; t < taps; t++, w += 4) {
        const uint32_t x = codes_at(type, base + places[t], k, count);
        s.a += (uint32_t)((int)(x & 255) * w[0]), s.b += (uint32_t)((int)(x >> 8 & 255) * w[1]);
        s.c += (uint32_t)((int)(x >> 16 & 255) * w[2]), s.d += (uint32_t)((int)(x >> 24) * w[3]);
    }
    return s;
}

#endif

#if !MPS_DSP
static inline MPS_INLINE four add_bytes(four s, const unsigned char *base, const int32_t *places,
                                        int taps, const weight *w) {
    for (; taps > 0; taps--, w += 4) {
        const unsigned char *place = base + *places++;
        s.a += (uint32_t)(place[0] * w[0]), s.b += (uint32_t)(place[1] * w[1]);
        s.c += (uint32_t)(place[2] * w[2]), s.d += (uint32_t)(place[3] * w[3]);
    }
    return s;
}
#elif !MPS_DSP_ASSEMBLY
static inline four add_bytes(four s, const unsigned char *base, const int32_t *places, int taps,
                             const weight *w) {
    return add_any(s, MPS_U8, base, 0, 4, places, taps, w);
}
#endif

/* Results that are not just bytes, of the block's channel k on. */
static MPS_APART void finish_any(const block *b, four s, int k, size_t to) {
    const uint32_t sums[4] = {s.a, s.b, s.c, s.d};
    for (int i = 0; i < at_most(4, b->count - k); i++)
        mps_finish_one(b->layer, b->channels + k + i, (int32_t)sums[i], b->addend, b->output,
                       to + (size_t)i);
}

/* All channels at one position; `to` is the first element of the output. */
static inline void one_position(const block *b, const unsigned char *base, const int32_t *places,
                                const weight *w, size_t to) {
    const mps_channel *f = b->channels;
    const int32_t *added = b->base, *end = added + b->count;
    for (; added < end; added += 4, f += 4, to += 4) {
        const int left = (int)(end - added);
        four s = {(uint32_t)added[0], (uint32_t)added[1], (uint32_t)added[2], (uint32_t)added[3]};
        if (b->type == MPS_U8 && left >= 4) {
            s = add_bytes(s, base + (added - b->base), places, b->taps, w);
        } else {
            s = add_any(s, b->type, base, b->count - left, left, places, b->taps, w);
        }
        w += MPS_DSP ? 2 * b->taps : 4 * b->taps;
        if (b->bytes && left >= 4) {
            unsigned char *bytes = (unsigned char *)b->output + to;
            int32_t p, q, r, v;
            if (b->raise)
                s.a <<= b->raise, s.b <<= b->raise, s.c <<= b->raise, s.d <<= b->raise;
            p = mps_code(f, s.a), q = mps_code(f + 1, s.b);
            r = mps_code(f + 2, s.c), v = mps_code(f + 3, s.d);
            if (b->clipped) {
                const int32_t low = b->low, high = b->high;
                p = mps_within(p, low, high), q = mps_within(q, low, high);
                r = mps_within(r, low, high), v = mps_within(v, low, high);
            } else {
                p = mps_byte(p), q = mps_byte(q), r = mps_byte(r), v = mps_byte(v);
            }
            bytes[0] = (unsigned char)p, bytes[1] = (unsigned char)q;
            bytes[2] = (unsigned char)r, bytes[3] = (unsigned char)v;
        } else {
            finish_any(b, s, b->count - left, to);
        }
    }
}

static void convolve_block(const window *w, weight *weights, const void *addend, void *output) {
    const mps_convolution *c = w->c;
    const mps_layer *layer = &c->layer;
    const int lines = (c->kernel_height - 1) * c->dilation_y;
    const int columns = (c->kernel_width - 1) * c->dilation_x;
    size_t to = (size_t)w->first;
    block b;
    b.layer = layer, b.addend = addend, b.output = output;
    b.type = layer->input_type, b.raise = layer->raise, b.low = layer->low, b.high = layer->high;
    b.taps = w->taps;
    b.count = at_most(CHANNELS, c->outputs - w->first);
    b.bytes = layer->output_type == MPS_U8 && !layer->sum;
    b.clipped = layer->low > 0 || layer->high < 255;
    for (int i = 0; i < b.count; i++) {
        b.channels[i] = mps_channel_of(layer, w->first + i);
        b.base[i] = layer->base ? layer->base[w->first + i] : 0;
        b.bytes &= b.channels[i].shift > 0;
    }
    unpack(layer, w->first, b.count, c->kernel_height * c->kernel_width, w->taps, weights);
    for (int y = 0; y < c->output_height; y++) {
        const int top = y * c->stride_y - c->top;
        const int whole = top >= 0 && top + lines < c->height;
        uintptr_t base =
            (uintptr_t)w->image + (uintptr_t)(((ptrdiff_t)top * c->width - c->left) * w->place);
        int left = -c->left;
        for (int x = 0; x < c->output_width; x++, to += (size_t)c->outputs) {
            const unsigned char *at = (const unsigned char *)base;
            const int inside = whole && left >= 0 && left + columns < c->width;
            one_position(&b, at, inside ? w->inside : taps_at(w, top, left, at), weights, to);
            left += c->stride_x, base += (uintptr_t)(c->stride_x * w->place);
        }
    }
}

void mps_convolve_depthwise(const mps_convolution *c, void *scratch, const void *input,
                            const void *addend, void *output) {
    const int taps = c->kernel_height * c->kernel_width;
    const int fields = c->layer.input_type == MPS_U4 ? 2 : c->layer.input_type == MPS_U2 ? 4 : 1;
    unsigned char *padding = scratch;
    window w;
    w.c = c;
    w.padding = padding;
    w.taps = MPS_DSP ? (taps + 1) / 2 * 2 : taps;
    w.place = c->channels / fields;
    w.inside = (int32_t *)(void *)(padding + CHANNELS);
    w.here = w.inside + w.taps;
    for (int i = 0; i < CHANNELS; i++)
        mps_set(padding, c->layer.input_type, (size_t)i, c->layer.input_zero);
    for (int t = 0; t < w.taps; t++) {
        const int tap = at_most(t, taps - 1);
        w.inside[t] = (tap / c->kernel_width * c->dilation_y * c->width +
                       tap % c->kernel_width * c->dilation_x) *
                      w.place;
    }
    for (w.first = 0; w.first < c->outputs; w.first += CHANNELS) {
        w.image = (const unsigned char *)input + w.first / fields;
        convolve_block(&w, (weight *)(void *)(w.here + w.taps), addend, output);
    }
}
