/* Convolution and linear layers as products of pairs of output channels with the codes that one or
   two output positions see. Those lie in the image itself where it has them side by side (1x1, and
   rows of a linear layer), or else in patches: a few positions' codes, padded with the zero point,
   each up to a whole word. */
#include "finishing.h"
#include "pairs.h"

/* -DMPS_WITHOUT_4, -DMPS_WITHOUT_2: no layer has weights of 4 or of 2 bits; their loops stay out.
 */
typedef void (*loop)(mps_sums *);
#ifdef MPS_WITHOUT_4
#define WORDS_4(POSITIONS) (loop)0
#else
#define WORDS_4(POSITIONS) mps_words_4_##POSITIONS
#endif
#ifdef MPS_WITHOUT_2
#define WORDS_2(POSITIONS) (loop)0
#else
#define WORDS_2(POSITIONS) mps_words_2_##POSITIONS
#endif

#define FEW_TERMS 64 /* of a convolution, unpacked if they do not fill words; in pairs.py, too */
#define CHUNK 1024   /* terms that are unpacked at once; _CHUNK in cortex_m.py */

/* Products of two channels with some positions. */
typedef struct {
    const mps_layer *layer;
    unsigned char *unpacked;
    mps_sums start; /* what each two positions begin with */
    int words;      /* of each channel; how they are read */
    loop words_1, words_2;
    int down;     /* how far their sums are shifted */
    int terms;    /* of each channel that are unpacked besides, at most CHUNK at once */
    size_t first; /* code of what is unpacked; the second channel's follow */
    int count;    /* of channels, 1 or 2 */
    int bytes;    /* results of one byte without a sum */
    int added;    /* sums of bytes, to bytes */
    int positions;
    mps_ending ending;
    size_t at, stride; /* element of the output; to that of the next position */
} pair;

/* Of all pairs. `in_place`: words of weights are read where they are stored. */
typedef struct {
    int groups, outputs, terms; /* channels and terms of a group */
    int in_place;
} shapes;

static int at_most(int x, int limit) { return x < limit ? x : limit; }

/* `terms` of the terms that are not in place, from the k-th on: the first channel's and the
   second's as words in turn, filled up with zeros. */
static MPS_APART void unpack(const pair *p, int k, int terms) {
    size_t start = p->first + (size_t)k;
    for (int channel = 0; channel < 2; channel++, start += (size_t)p->terms) {
        mps_reader codes = mps_reader_at(p->layer, start);
        unsigned char *word = p->unpacked + 4 * channel;
        int i = 0;
        for (; i < terms && channel < p->count; i++)
            word[i / 4 * 8 + i % 4] =
                (unsigned char)(codes.bits == 8 ? *codes.from++ : mps_next(&codes));
        for (; i < (terms + 3) / 4 * 4; i++)
            word[i / 4 * 8 + i % 4] = 0;
    }
}

/* The terms that are not in place. */
static void add_unpacked(const pair *p, int two, mps_sums *s) {
    for (int k = 0; k < p->terms; k += CHUNK) {
        const int terms = at_most(CHUNK, p->terms - k);
        if (p->terms > CHUNK)
            unpack(p, k, terms);
        mps_expect(s, 8, p->unpacked, (terms + 3) / 4);
        (two ? mps_words_8_2 : mps_words_8_1)(s);
    }
}

/* Two channels at one position with an addend of bytes, to bytes. */
static inline MPS_INLINE void add_bytes(const pair *p, const mps_sums *s, uint32_t a, uint32_t b,
                                        size_t at) {
    const mps_layer *layer = p->layer;
    const unsigned char *addend = (const unsigned char *)p->ending.addend + at;
    const int32_t low = layer->low, high = layer->high, first = addend[0], second = addend[1];
    unsigned char *to = (unsigned char *)p->ending.output + at;
    const int32_t x = mps_within(mps_code(&s->a, a << layer->raise), low, high);
    const int32_t y = mps_within(mps_code(&s->b, b << layer->raise), low, high);
    const int32_t one = mps_summed(&p->ending, layer->sum, x, first);
    const int32_t other = mps_summed(&p->ending, layer->sum, y, second);
    to[0] = (unsigned char)one, to[1] = (unsigned char)other;
}

/* Results that are not just bytes of two channels. */
static MPS_APART void finish_any(const pair *p, const mps_sums *s, size_t at, int two) {
    if (p->added) {
        uint32_t first = s->a0, second = s->b0;
        for (int position = 0; position <= two; position++, at += p->stride) {
            add_bytes(p, s, first, second, at);
            first = s->a1, second = s->b1;
        }
        return;
    }
    mps_finish_one(&p->ending, &s->a, s->a0, at);
    if (p->count > 1)
        mps_finish_one(&p->ending, &s->b, s->b0, at + 1);
    if (!two)
        return;
    mps_finish_one(&p->ending, &s->a, s->a1, at + p->stride);
    if (p->count > 1)
        mps_finish_one(&p->ending, &s->b, s->b1, at + p->stride + 1);
}

/* Two positions at a time, and a last one. */
static MPS_APART void multiply_pair(const pair *p) {
    const int last = p->positions & 1;
    int left = p->positions;
    size_t at = p->at;
    mps_sums s = p->start;
    if (mps_fused && left > 1 && p->bytes && p->terms == 0 && p->layer->raise == 0) {
        s.times = left / 2;
        s.to += at;
        p->words_2(&s);
        s = p->start;
        s.x += (size_t)(left - last) * s.row, at += (size_t)(left - last) * p->stride;
        left = last;
    }
    for (; left > 0; left -= 2) {
        const int two = left > 1;
        const unsigned char *codes = s.x;
        if (p->words)
            (two ? p->words_2 : p->words_1)(&s);
        if (p->down) {
            s.a0 = (uint32_t)((int32_t)s.a0 >> p->down) + s.base_a;
            s.a1 = (uint32_t)((int32_t)s.a1 >> p->down) + s.base_a;
            s.b0 = (uint32_t)((int32_t)s.b0 >> p->down) + s.base_b;
            s.b1 = (uint32_t)((int32_t)s.b1 >> p->down) + s.base_b;
        }
        if (p->terms)
            add_unpacked(p, two, &s);
        if (p->bytes) {
            const int32_t low = p->layer->low, high = p->layer->high, raise = p->layer->raise;
            const int32_t a0 = mps_code(&s.a, s.a0 << raise), b0 = mps_code(&s.b, s.b0 << raise);
            const int32_t a1 = mps_code(&s.a, s.a1 << raise), b1 = mps_code(&s.b, s.b1 << raise);
            unsigned char *to = s.to + at;
            to[0] = (unsigned char)mps_within(a0, low, high);
            to[1] = (unsigned char)mps_within(b0, low, high);
            if (two) {
                to[p->stride] = (unsigned char)mps_within(a1, low, high);
                to[p->stride + 1] = (unsigned char)mps_within(b1, low, high);
            }
        } else {
            finish_any(p, &s, at, two);
        }
        s.a0 = p->start.a0, s.a1 = p->start.a1, s.b0 = p->start.b0, s.b1 = p->start.b1;
        s.w = p->start.w, s.unrolled = p->start.unrolled, s.end = p->start.end;
        s.x = codes + 2 * s.row, at += 2 * p->stride;
    }
}

/* The channels of a group for some positions; p has codes, row, positions, at and stride. */
static MPS_SMALL void multiply(pair *p, const shapes *s, int group) {
    const mps_layer *layer = p->layer;
    const int pairs = s->outputs / 2, bits = layer->bits;
    const int whole = s->in_place ? s->terms / (32 / bits) * (32 / bits) : 0;
    const size_t stored = (size_t)(2 * whole); /* of a pair, in place */
    const int rest = s->terms - whole, single = s->outputs % 2 * s->terms;
    size_t place = (size_t)(group * pairs) * stored;
    size_t next =
        (size_t)(s->groups * pairs) * stored + (size_t)group * (size_t)(2 * pairs * rest + single);
    for (int o = 0; o < s->outputs; o += 2, p->at += 2, place += stored) {
        const int channel = group * s->outputs + o;
        const int32_t *base = layer->base ? layer->base + channel : NULL;
        int read = bits; /* those of the weights that are read */
        p->count = at_most(2, s->outputs - o);
        p->terms = p->count == 2 ? rest : s->terms;
        p->words = p->count == 2 ? whole / (32 / bits) : 0;
        p->first = next;
        next += (size_t)(p->count * p->terms);
        mps_expect(&p->start, bits, layer->weights + place / 8 * (size_t)bits, p->words);
        if (p->terms > 0 && p->terms <= CHUNK) {
            unpack(p, 0, p->terms);
            if (p->words == 0) { /* they are all there is */
                read = 8;
                p->words = (p->terms + 3) / 4;
                p->terms = 0;
                mps_expect(&p->start, 8, p->unpacked, p->words);
            }
        }
        p->words_1 = read == 8 ? mps_words_8_1 : read == 4 ? WORDS_4(1) : WORDS_2(1);
        p->words_2 = read == 8 ? mps_words_8_2 : read == 4 ? WORDS_4(2) : WORDS_2(2);
        p->down = MPS_DSP && !mps_fused && p->words > 0 ? 8 - read : 0;
        p->start.a = p->start.b = mps_channel_of(layer, channel);
        p->start.base_a = p->start.base_b = base ? (uint32_t)base[0] : 0;
        if (p->count == 2) {
            p->start.b = mps_channel_of(layer, channel + 1);
            p->start.base_b = base ? (uint32_t)base[1] : 0;
        }
        p->start.a0 = p->start.b0 = 0; /* where they are added at the end */
        if (read == 8 || !MPS_DSP || p->words == 0)
            p->start.a0 = p->start.base_a, p->start.b0 = p->start.base_b;
        p->start.a1 = p->start.a0, p->start.b1 = p->start.b0;
        p->bytes = p->added = 0;
        if (p->count == 2 && p->start.a.shift > 0 && p->start.b.shift > 0) {
            const mps_sum *sum = layer->sum;
            if (sum)
                p->added = sum->addend_type == MPS_U8 && sum->output_type == MPS_U8;
            else
                p->bytes = layer->output_type == MPS_U8;
        }
        multiply_pair(p);
    }
    p->at -= (size_t)(s->outputs + 1) / 2 * 2;
}

/* Words where both sides lie as this processor can read them. */
static inline MPS_INLINE void copy_bytes(const unsigned char *from, int count, unsigned char *to) {
#if !defined(__ARM_FEATURE_UNALIGNED)
    if ((((uintptr_t)from | (uintptr_t)to) & 3) == 0)
#endif
    {
        for (; count >= 16; count -= 16, from += 16, to += 16)
            memcpy(to, from, 16);
        for (; count >= 4; count -= 4, from += 4, to += 4)
            memcpy(to, from, 4);
    }
    for (; count > 0; count--)
        *to++ = *from++;
}

/* `count` codes from element `at` on, a byte for each. */
static MPS_APART void copy(mps_type type, const unsigned char *from, size_t at, int count,
                           unsigned char *to) {
    const int bits = type == MPS_U4 ? 4 : type == MPS_U2 ? 2 : 8;
    int shift = (int)(at * (size_t)bits % 8);
    unsigned held;
    if (bits == 8) {
        copy_bytes(from + at, count, to);
        return;
    }
    from += at * (size_t)bits / 8;
    held = (unsigned)*from >> shift;
    for (; count > 0; count--, shift += bits, held >>= bits) {
        if (shift == 8)
            held = *++from, shift = 0;
        *to++ = (unsigned char)(held & ((1U << bits) - 1));
    }
}

/* What output (y, x) sees of all channels, where taps of a line lie beside each other. */
static void gather_lines(const mps_convolution *c, const unsigned char *image, int y, int x,
                         unsigned char *to) {
    const int zero = c->layer.input_zero, channels = c->channels, lines = c->height;
    const int left = x * c->stride_x - c->left, line = c->kernel_width * channels;
    const int beyond = left + c->kernel_width - c->width;
    const int before = left < 0 ? at_most(-left, c->kernel_width) * channels : 0;
    const int after = beyond > 0 ? at_most(beyond * channels, line - before) : 0;
    const int seen = line - before - after;
    const ptrdiff_t below = (ptrdiff_t)c->dilation_y * c->width * channels;
    int sy = y * c->stride_y - c->top;
    ptrdiff_t at = ((ptrdiff_t)sy * c->width + left) * channels + before;
    for (int ky = c->kernel_height; ky > 0; ky--, sy += c->dilation_y, at += below, to += line) {
        if (seen == 0 || (unsigned)sy >= (unsigned)lines) {
            memset(to, zero, (size_t)line);
            continue;
        }
        if (before)
            memset(to, zero, (size_t)before);
        if (c->layer.input_type == MPS_U8)
            copy_bytes(image + at, seen, to + before);
        else
            copy(c->layer.input_type, image, (size_t)at, seen, to + before);
        if (after)
            memset(to + line - after, zero, (size_t)after);
    }
}

/* What output (y, x) sees of a group of channels. */
static void gather_taps(const mps_convolution *c, const unsigned char *image, int group, int y,
                        int x, unsigned char *to) {
    const int inputs = c->channels / c->groups;
    int sy = y * c->stride_y - c->top;
    for (int ky = c->kernel_height; ky > 0; ky--, sy += c->dilation_y) {
        int sx = x * c->stride_x - c->left;
        for (int kx = c->kernel_width; kx > 0; kx--, sx += c->dilation_x, to += inputs) {
            if (sy < 0 || sy >= c->height || sx < 0 || sx >= c->width)
                memset(to, c->layer.input_zero, (size_t)inputs);
            else
                copy(c->layer.input_type, image,
                     ((size_t)sy * (size_t)c->width + (size_t)sx) * (size_t)c->channels +
                         (size_t)(group * inputs),
                     inputs, to);
        }
    }
}

static size_t whole_words(int terms) { return (size_t)(terms + 3) / 4 * 4; }

/* `few`: with so few terms all are unpacked where some do not fill words. */
static shapes shapes_of(const mps_layer *layer, int groups, int outputs, int terms, int few) {
    shapes s;
    s.groups = groups, s.outputs = outputs, s.terms = terms;
    s.in_place = (layer->bits == 8 || layer->bits == 4 || layer->bits == 2) &&
                 (terms > few || terms % (32 / layer->bits) == 0);
    return s;
}

/* The first bytes of the scratch are for unpacked weights. */
static MPS_SMALL pair pair_of(const mps_layer *layer, unsigned char *scratch, const void *addend,
                              void *output, size_t stride) {
    pair p;
    p.layer = layer;
    p.unpacked = scratch;
    p.ending = mps_ending_of(layer, addend, output);
    p.stride = stride;
    p.start.times = 0;
    p.start.above = UINT32_C(0x01010101) * (uint32_t)(255 - layer->high);
    p.start.low = UINT32_C(0x01010101) * (uint32_t)layer->low;
    p.start.both = p.start.above + p.start.low;
    p.start.to = output;
    p.start.stride = stride;
    return p;
}

static size_t unpacked_bytes(const shapes *s, int bits) {
    const int terms = s->in_place && s->outputs % 2 == 0 ? s->terms % (32 / bits) : s->terms;
    return 2 * whole_words(at_most(terms, CHUNK));
}

void mps_convolve_patches(const mps_convolution *c, void *scratch, const void *input,
                          const void *addend, void *output) {
    const int inputs = c->channels / c->groups;
    const int count = c->output_height * c->output_width;
    const int points = c->kernel_height == 1 && c->kernel_width == 1 && c->groups == 1 &&
                       c->output_height == c->height && c->output_width == c->width &&
                       c->stride_y == 1 && c->stride_x == 1 && c->channels % 4 == 0 &&
                       c->layer.input_type == MPS_U8 && c->block == count;
    const shapes s = shapes_of(&c->layer, c->groups, c->outputs / c->groups,
                               inputs * c->kernel_height * c->kernel_width, FEW_TERMS);
    pair p = pair_of(&c->layer, scratch, addend, output, (size_t)c->outputs);
    unsigned char *patches = (unsigned char *)scratch + unpacked_bytes(&s, c->layer.bits);
    p.start.row = whole_words(s.terms);
    if (points) {
        p.start.x = input, p.positions = count, p.at = 0;
        multiply(&p, &s, 0);
        return;
    }
    p.start.x = patches;
    for (int group = 0; group < c->groups; group++) {
        int y = 0, x = 0;
        for (int done = 0; done < count; done += p.positions) {
            p.positions = at_most(c->block, count - done);
            for (int i = 0; i < p.positions; i++) {
                unsigned char *patch = patches + (size_t)i * p.start.row;
                if (c->groups == 1 && c->dilation_x == 1)
                    gather_lines(c, input, y, x, patch);
                else
                    gather_taps(c, input, group, y, x, patch);
                if (++x == c->output_width)
                    x = 0, y++;
            }
            p.at = (size_t)done * (size_t)c->outputs + (size_t)(group * s.outputs);
            multiply(&p, &s, group);
        }
    }
}

MPS_SMALL void mps_multiply_patches(const mps_linear *l, void *scratch, const void *input,
                                    const void *addend, void *output) {
    const int in_place = l->inputs % 4 == 0 && l->layer.input_type == MPS_U8;
    const shapes s = shapes_of(&l->layer, 1, l->outputs, l->inputs, 0);
    pair p = pair_of(&l->layer, scratch, addend, output, (size_t)l->outputs);
    unsigned char *patches = (unsigned char *)scratch + unpacked_bytes(&s, l->layer.bits);
    p.start.row = whole_words(l->inputs);
    for (int done = 0; done < l->rows; done += p.positions) {
        p.positions = in_place ? l->rows : at_most(l->block, l->rows - done);
        p.start.x = in_place ? input : patches;
        for (int i = 0; i < p.positions && !in_place; i++)
            copy(l->layer.input_type, input, (size_t)(done + i) * (size_t)l->inputs, l->inputs,
                 patches + (size_t)i * p.start.row);
        p.at = (size_t)done * (size_t)l->outputs;
        multiply(&p, &s, 0);
    }
}
