// From counters to normals, shared by every CPU kernel and by CUDA.
//
// Philox-4x32-10 (Salmon, Moraes, Dror & Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011), then Box & Muller
// (1958). Integers, and float sums, products, quotients and square roots, each rounded once: all of them are exact
// everywhere, so the bits are the same everywhere, as long as nobody fuses a product into a sum (see CMakeLists.txt).
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "resynth/host_device.h"

namespace resynth {

// Operations on a number, or a vector of numbers (lanes.h), that are not operators.
struct OneLane {
    using Floats = float;
    using Words = uint32_t;
    using Ints = int32_t;

    RESYNTH_HD float sqrt(float x) { return sqrtf(x); }
    RESYNTH_HD float from(int32_t x) { return static_cast<float>(x); }
    RESYNTH_HD float from(uint32_t x) { return static_cast<float>(x); }
    RESYNTH_HD uint32_t bits_of(float x) {
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        return bits;
    }
    RESYNTH_HD float of_bits(uint32_t bits) {
        float x;
        memcpy(&x, &bits, sizeof x);
        return x;
    }
    // high · 2³² + low = x · factor
    RESYNTH_HD void multiply(uint32_t x, uint32_t factor, uint32_t& high, uint32_t& low) {
        const uint64_t product = static_cast<uint64_t>(x) * factor;
        high = static_cast<uint32_t>(product >> 32);
        low = static_cast<uint32_t>(product);
    }
};

// Replaces the counter in `words` by its Philox output under the key `seed`.
template <class Lanes>
RESYNTH_HD void philox(uint64_t seed, typename Lanes::Words (&words)[4]) {
    uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        typename Lanes::Words high0, low0, high2, low2;
        Lanes::multiply(words[0], 0xD2511F53u, high0, low0);
        Lanes::multiply(words[2], 0xCD9E8D57u, high2, low2);
        words[0] = high2 ^ words[1] ^ key0;
        words[1] = low2;
        words[2] = high0 ^ words[3] ^ key1;
        words[3] = low0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

// √(−2 ln u) of the uniform u = (word + 1) / 2³² in (0, 1]: the logarithm never sees zero.
template <class Lanes>
RESYNTH_HD typename Lanes::Floats radius_of(typename Lanes::Words word) {
    using Floats = typename Lanes::Floats;
    using Words = typename Lanes::Words;
    using Ints = typename Lanes::Ints;
    // u = 2^e (1 + f) with 1 + f in [√½, √2). Near 1, where ln u is near 0, float would lose the digits of u; there
    // f is computed from 1 − u.
    constexpr uint32_t one = 0x3F800000u, sqrt_half = 0x3F3504F3u;  // bits of the floats
    const Words missing = ~word;
    const Words scaled = Lanes::bits_of(Lanes::from(word + 1u)) + (one - sqrt_half);
    const auto near_one = missing < 0x4AFB0CCDu;  // (1 − √½) 2³²
    const Ints exponent = near_one ? Ints{} : (Ints)(scaled >> 23) - (127 + 32);
    const Floats f =
        near_one ? Lanes::from((Ints)missing) * -0x1p-32f : Lanes::of_bits((scaled & 0x007FFFFFu) + sqrt_half) - 1.0f;
    // −2 ln (1 + f) = −4 artanh s: a minimax polynomial, relative error 1e-9.
    const Floats s = f / (f + 2.0f), z = s * s;
    const Floats series = s * (-4.0f + z * (-0x1.55557ap+0f + z * (-0x1.995e9ep-1f + z * -0x1.31e634p-1f)));
    return Lanes::sqrt(Lanes::from(exponent) * -0x1.62e430p+0f + series);
}

// cos and sin of 2π word / 2³². The nearest quarter turn is taken off in integers, without error.
template <class Lanes>
RESYNTH_HD void turn(typename Lanes::Words word, typename Lanes::Floats& cosine, typename Lanes::Floats& sine) {
    using Floats = typename Lanes::Floats;
    using Words = typename Lanes::Words;
    using Ints = typename Lanes::Ints;
    const Words shifted = word + 0x20000000u, quarter = shifted >> 30;
    const Ints rest = (Ints)(shifted & 0x3FFFFFFFu) - 0x20000000;
    const Floats y = Lanes::from(rest) * 0x1p-29f, z = y * y;  // y in [−1, 1) stands for the angle π/4 y
    // Minimax polynomials of sin (π/4 y) / y and cos (π/4 y), relative error 3e-9 and 1e-10.
    const Floats near_sine = y * (0x1.921fb6p-1f + z * (-0x1.4abbbap-4f + z * (0x1.465ec6p-9f + z * -0x1.2d9bb8p-15f)));
    const Floats near_cosine =
        1.0f + z * (-0x1.3bd3ccp-2f + z * (0x1.03c1dep-6f + z * (-0x1.55c66ap-12f + z * 0x1.d9f90ap-19f)));
    const auto odd = (quarter & 1u) != 0u;
    const Floats across = odd ? near_sine : near_cosine, along = odd ? near_cosine : near_sine;
    cosine = Lanes::of_bits(Lanes::bits_of(across) ^ (((quarter + 1u) & 2u) << 30));
    sine = Lanes::of_bits(Lanes::bits_of(along) ^ ((quarter & 2u) << 30));
}

// The four normals of each counter (block, call, 0, 0).
template <class Lanes>
RESYNTH_HD void normals(uint64_t seed, uint32_t call, typename Lanes::Words block, typename Lanes::Floats (&out)[4]) {
    typename Lanes::Words words[4] = {block, typename Lanes::Words{} + call, {}, {}};
    philox<Lanes>(seed, words);
    for (int pair = 0; pair < 4; pair += 2) {
        typename Lanes::Floats cosine, sine;
        turn<Lanes>(words[pair + 1], cosine, sine);
        const auto radius = radius_of<Lanes>(words[pair]);
        out[pair] = radius * cosine;
        out[pair + 1] = radius * sine;
    }
}

}  // namespace resynth
