/* The border between real numbers and codes: the only floating point. Leave it out of firmware that
   has codes already. */
#ifndef MPS_BORDER_H
#define MPS_BORDER_H

#include <stddef.h>

/* Write the codes of `values` into entry `entry`, see NETWORK_ENTRIES in network.h. */
void network_quantize(int entry, const float *values);

/* The same for `count` elements from `first` on: as they come from a sensor, without a buffer. */
void network_quantize_part(int entry, size_t first, size_t count, const float *values);

/* What element `i` of the output stands for. */
double network_real(int i);

#endif
