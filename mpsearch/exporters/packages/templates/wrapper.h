/* All that a program needs, in C and in C++: codes of a sample in, run, codes of the output out. */
#ifndef @GUARD@
#define @GUARD@

#ifdef __cplusplus
extern "C" {
#endif

#include "border.h"
#include "network.h"

#ifdef __cplusplus
}
#endif

#endif
