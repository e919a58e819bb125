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
    mps_type type; /* of the input */
    int count, taps, raise;
    int bytes; /* results of one byte without a sum */
    int fours; /* of channels, that assembly computes */
    int low, high;
    mps_ending ending;
    int32_t base[CHANNELS];
    mps_channel channels[CHANNELS];
} block;

/* Sums of four channels. */
typedef struct {
    uint32_t a, b, c, d;
} four;

#if MPS_DSP
typedef uint32_t weight; /* of two taps, as halfwords; four channels, then two more taps of these */

static MPS_SMALL MPS_APART void unpack(const mps_layer *layer, int first, int count, int taps,
                                       int padded, weight *to) {
    mps_reader codes = mps_reader_at(layer, (size_t)first * (size_t)taps);
    const int pairs = padded / 2;
    for (int i = 0; i < 4 * pairs * ((count + 3) / 4); i++)
        to[i] = 0;
    for (int t = 0; t < taps; t++)
        for (int i = 0; i < count; i++)
            to[(i / 4 * pairs + t / 2) * 4 + i % 4] |= ((uint32_t)mps_next(&codes) & 0xffff)
                                                       << 16 * (t % 2);
}

static MPS_APART four add_any(four s, mps_type type, const unsigned char *codes, int k, int count,
                              const int32_t *places, int taps, const weight *w) {
    for (int t = 0; t < taps; t += 2, w += 4) {
        const uint32_t x = codes_at(type, codes + places[t], k, count);
        const uint32_t y = codes_at(type, codes + places[t + 1], k, count);
        const uint32_t lower = mps_lower(x, y), upper = mps_higher(x, y);
        s.a = mps_dual(mps_even(lower), w[0], s.a), s.b = mps_dual(mps_odd(lower), w[1], s.b);
        s.c = mps_dual(mps_even(upper), w[2], s.c), s.d = mps_dual(mps_odd(upper), w[3], s.d);
    }
    return s;
}

static inline four add_bytes(four s, const unsigned char *codes, const int32_t *places, int taps,
                             const weight *w) {
    return add_any(s, MPS_U8, codes, 0, 4, places, taps, w);
}

#else
typedef int8_t weight; /* of a tap: four channels, then the next tap of these */

static MPS_SMALL MPS_APART void unpack(const mps_layer *layer, int first, int count, int taps,
                                       int padded, weight *to) {
    mps_reader codes = mps_reader_at(layer, (size_t)first * (size_t)taps);
    for (int t = 0; t < taps; t++)
        for (int i = 0; i < count; i++)
            to[(i / 4 * padded + t) * 4 + i % 4] = (weight)mps_next(&codes);
}

static MPS_APART four add_any(four s, mps_type type, const unsigned char *codes, int k, int count,
                              const int32_t *places, int taps, const weight *w) {
    for (int t = 0; t < taps; t++, w += 4) {
        const uint32_t x = codes_at(type, codes + places[t], k, count);
        s.a += (uint32_t)((int)(x & 255) * w[0]), s.b += (uint32_t)((int)(x >> 8 & 255) * w[1]);
        s.c += (uint32_t)((int)(x >> 16 & 255) * w[2]), s.d += (uint32_t)((int)(x >> 24) * w[3]);
    }
    return s;
}

static inline MPS_INLINE four add_bytes(four s, const unsigned char *codes, const int32_t *places,
                                        int taps, const weight *w) {
    for (; taps > 0; taps--, w += 4) {
        const unsigned char *place = codes + *places++;
        s.a += (uint32_t)(place[0] * w[0]), s.b += (uint32_t)(place[1] * w[1]);
        s.c += (uint32_t)(place[2] * w[2]), s.d += (uint32_t)(place[3] * w[3]);
    }
    return s;
}

#endif

/* Results that are not just bytes, of the block's channel k on. */
static MPS_APART void finish_any(const block *b, four s, int k, size_t to) {
    const uint32_t sums[4] = {s.a, s.b, s.c, s.d};
    for (int i = 0; i < at_most(4, b->count - k); i++)
        mps_finish_one(&b->ending, b->channels + k + i, sums[i], to + (size_t)i);
}

#if MPS_DSP_ASSEMBLY

/* What is next of one position. Assembly knows this order. */
typedef struct {
    const int32_t *base, *places, *end;
    const weight *w;
    const unsigned char *codes;
    const mps_channel *channels;
    uint32_t above, both, low; /* four times 255 - high, that + low, low */
    unsigned char *to;
    int fours;
} position;

/* Channels in fours, to bytes: 17 instructions for two taps of four, 38 for their codes. */
static MPS_APART void fours_to_bytes(position *next) {
    register position *p __asm__("r0") = next;
    __asm__ volatile(
        "push {r7}\n\tldr r6, [r0, #8]\n\tldr r7, [r0, #12]\n\tldr r8, [r0, #16]\n\t"
        "1:\n\t"
        "ldr r5, [r0]\n\tldm r5!, {r1, r2, r3, r4}\n\tstr r5, [r0]\n\t"
        "ldr r5, [r0, #4]\n\t"
        "2:\n\t"
        "ldrd r11, r12, [r5], #8\n\t"
        "ldr r11, [r8, r11]\n\t"
        "ldr r12, [r8, r12]\n\t"
        "pkhbt r9, r11, r12, lsl #16\n\t"
        "pkhtb r10, r12, r11, asr #16\n\t"
        "ldrd r11, r12, [r7], #8\n\t"
        "uxtb16 lr, r9\n\t"
        "uxtb16 r9, r9, ror #8\n\t"
        "smlad r1, r11, lr, r1\n\t"
        "smlad r2, r12, r9, r2\n\t"
        "ldrd r11, r12, [r7], #8\n\t"
        "uxtb16 lr, r10\n\t"
        "uxtb16 r10, r10, ror #8\n\t"
        "smlad r3, r11, lr, r3\n\t"
        "smlad r4, r12, r10, r4\n\t"
        "cmp r5, r6\n\tbne 2b\n\t"
        "ldr r5, [r0, #20]\n\t" /* multiplier, shift, what is added, its shift */
        "ldm r5!, {r9, r10, r11, r12}\n\tsmmla r1, r1, r9, r11\n\tasr r1, r1, r12\n\t"
        "ldm r5!, {r9, r10, r11, r12}\n\tsmmla r2, r2, r9, r11\n\tasr r2, r2, r12\n\t"
        "ldm r5!, {r9, r10, r11, r12}\n\tsmmla r3, r3, r9, r11\n\tasr r3, r3, r12\n\t"
        "ldm r5!, {r9, r10, r11, r12}\n\tsmmla r4, r4, r9, r11\n\tasr r4, r4, r12\n\t"
        "str r5, [r0, #20]\n\t"
        "usat r1, #8, r1\n\tusat r2, #8, r2\n\tusat r3, #8, r3\n\tusat r4, #8, r4\n\t"
        "orr r1, r1, r2, lsl #8\n\torr r3, r3, r4, lsl #8\n\t"
        "orr r1, r1, r3, lsl #16\n\t"
        "ldrd r9, r10, [r0, #24]\n\tldrd r11, r12, [r0, #32]\n\t"
        "uqadd8 r1, r1, r9\n\tuqsub8 r1, r1, r10\n\tuqadd8 r1, r1, r11\n\t"
        "str r1, [r12], #4\n\tstr r12, [r0, #36]\n\t"
        "add r8, r8, #4\n\t"
        "ldr r9, [r0, #40]\n\tsubs r9, r9, #1\n\tstr r9, [r0, #40]\n\tbne 1b\n\tpop {r7}"
        : "+r"(p)
        :
        : "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "memory",
          "cc");
}

/* How many channels were done. */
static int whole_fours(const block *b, const unsigned char *codes, const int32_t *places,
                       const weight *w, size_t to) {
    position p;
    if (b->fours == 0)
        return 0;
    p.base = b->base, p.places = places, p.end = places + b->taps;
    p.w = w, p.codes = codes, p.channels = b->channels;
    p.above = 0x01010101u * (uint32_t)(255 - b->high), p.low = 0x01010101u * (uint32_t)b->low;
    p.both = p.above + p.low;
    p.to = (unsigned char *)b->ending.output + to, p.fours = b->fours;
    fours_to_bytes(&p);
    return 4 * b->fours;
}

#else

static int whole_fours(const block *b, const unsigned char *codes, const int32_t *places,
                       const weight *w, size_t to) {
    (void)b, (void)codes, (void)places, (void)w, (void)to;
    return 0;
}

#endif

/* All channels at one position; `to` is the first element of the output. */
static inline void one_position(const block *b, const unsigned char *codes, const int32_t *places,
                                const weight *w, size_t to) {
    const int each = MPS_DSP ? 2 * b->taps : 4 * b->taps; /* weights of four channels */
    for (int k = whole_fours(b, codes, places, w, to); k < b->count; k += 4) {
        const mps_channel *f = b->channels + k;
        const int32_t *base = b->base + k;
        const int left = b->count - k;
        four s = {(uint32_t)base[0], (uint32_t)base[1], (uint32_t)base[2], (uint32_t)base[3]};
        if (b->type == MPS_U8 && left >= 4)
            s = add_bytes(s, codes + k, places, b->taps, w + k / 4 * each);
        else
            s = add_any(s, b->type, codes, k, left, places, b->taps, w + k / 4 * each);
        if (b->bytes && left >= 4) {
            unsigned char *bytes = (unsigned char *)b->ending.output + to + k;
            const int32_t low = b->low, high = b->high, raise = b->raise;
            const int32_t first = mps_code(f, s.a << raise), second = mps_code(f + 1, s.b << raise);
            const int32_t third = mps_code(f + 2, s.c << raise);
            const int32_t fourth = mps_code(f + 3, s.d << raise);
            bytes[0] = (unsigned char)mps_within(first, low, high);
            bytes[1] = (unsigned char)mps_within(second, low, high);
            bytes[2] = (unsigned char)mps_within(third, low, high);
            bytes[3] = (unsigned char)mps_within(fourth, low, high);
        } else {
            finish_any(b, s, k, to + (size_t)k);
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
    b.ending = mps_ending_of(layer, addend, output);
    b.type = layer->input_type, b.raise = layer->raise, b.low = layer->low, b.high = layer->high;
    b.taps = w->taps;
    b.count = at_most(CHANNELS, c->outputs - w->first);
    b.bytes = layer->output_type == MPS_U8 && !layer->sum;
    for (int i = 0; i < b.count; i++) {
        b.channels[i] = mps_channel_of(layer, w->first + i);
        b.base[i] = layer->base ? layer->base[w->first + i] : 0;
        b.bytes &= b.channels[i].shift > 0;
    }
    b.fours = b.bytes && b.raise == 0 && b.type == MPS_U8 ? b.count / 4 : 0;
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

MPS_SMALL void mps_convolve_depthwise(const mps_convolution *c, void *scratch, const void *input,
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
