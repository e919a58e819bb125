/* Results of any type, with and without a sum. */
#include "finishing.h"

#define LARGEST_SHIFT 22 /* of a zero point of 8 bits, within 32 */

mps_channel mps_channel_of(const mps_layer *layer, int channel) {
    mps_channel c;
    c.scale = mps_scale_of(layer, channel);
    c.added = 0;
    c.shift = c.scale.shift + layer->raise - 32;
    if (layer->rounding != MPS_HALF_UP || layer->raise > 30 || c.shift < 1 ||
        c.shift > LARGEST_SHIFT || layer->output_zero < 0 || layer->output_zero > 255)
        c.shift = 0;
    else
        c.added = (1 << (c.shift - 1)) + (layer->output_zero << c.shift);
    return c;
}

MPS_SMALL mps_ending mps_ending_of(const mps_layer *layer, const void *addend, void *output) {
    const mps_sum *sum = layer->sum;
    mps_ending e = {layer, addend, output, 0, 0};
    if (sum) {
        const int64_t last = INT64_C(1) << (sum->shift - 1);
        e.constant = (int64_t)sum->offset * (INT64_C(1) << sum->raise) + last;
        e.mask = 2 * (last - 1) + 1;
    }
    return e;
}

void mps_finish_one(const mps_ending *e, const mps_channel *c, uint32_t x, size_t at) {
    const mps_layer *layer = e->layer;
    const mps_sum *sum = layer->sum;
    unsigned char *bytes = e->output;
    mps_type type = layer->output_type;
    int32_t code;
    if (c->shift)
        code = mps_within(mps_code(c, x << layer->raise), layer->low, layer->high);
    else
        code = mps_finish(layer, c->scale, (int32_t)x);
    if (sum) {
        const int32_t other = sum->addend_type == MPS_U8 ? ((const unsigned char *)e->addend)[at]
                                                         : mps_get(e->addend, sum->addend_type, at);
        code = mps_summed(e, sum, code, other);
        type = sum->output_type;
    }
    if (type == MPS_U8)
        bytes[at] = (unsigned char)code;
    else
        mps_set(bytes, type, at, code);
}
