"""The samplers against closed forms: equations in float64, Gaussian targets, the noise budget."""

import functools
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from diffsep_jax import diffusion, samplers
from diffsep_jax.errors import UserError

SAMPLE_RATE = 16000
KEY = jax.random.key(0)
ETAS = [0.0, 0.4, 1.0]
SHAPE = (64, 256, 2)
SCALE = 0.5  # s of the Gaussian target x0 ~ N(mu, s^2)


def paper_coefficients(sigma_t, sigma_s, eta):
    """(alpha_s, beta', delta) by equations (8) and (9) as they stand, in float64."""
    alpha_t, alpha_s = np.cos(np.pi / 2 * sigma_t), np.cos(np.pi / 2 * sigma_s)
    beta_t, beta_s = np.sin(np.pi / 2 * sigma_t), np.sin(np.pi / 2 * sigma_s)
    delta = eta * beta_s / beta_t * np.sqrt(1 - alpha_t**2 / alpha_s**2)
    return alpha_s, np.sqrt(np.maximum(beta_s**2 - delta**2, 0)), delta


def butterworth_gain(cutoff_hz, length):
    """The two-sided gain of the high-pass, brought to unit rms, from scipy."""
    if cutoff_hz == 0:
        return np.ones(length)
    sos = scipy.signal.butter(4, cutoff_hz, "highpass", fs=SAMPLE_RATE, output="sos")
    frequencies = np.abs(np.fft.fftfreq(length, 1 / SAMPLE_RATE))
    gain = np.abs(scipy.signal.sosfreqz(sos, worN=frequencies, fs=SAMPLE_RATE)[1])
    return gain / np.sqrt(np.mean(gain**2))


def target_mean():
    return 0.7 * jax.random.normal(jax.random.key(9), (1, *SHAPE[1:]))


def gaussian_velocity(x, sigma):
    """E[v | x_sigma] for x0 ~ N(mu, s^2): the network that a perfect training would give."""
    alpha, beta = diffusion.alpha_beta(sigma)
    mean = jnp.broadcast_to(target_mean(), x.shape)
    surprise = (x - alpha * mean) / (alpha**2 * SCALE**2 + beta**2)
    return diffusion.velocity(mean + alpha * SCALE**2 * surprise, beta * surprise, sigma)


def white(shape):
    """The fresh noise of a step, of which nothing else is known."""
    return lambda step: jax.random.normal(jax.random.fold_in(KEY, step), shape)


@pytest.mark.parametrize("eta", [0.0, 0.2, 0.4, 0.8, 1.0])
def test_coefficients_over_the_whole_grid(eta):
    """Every move of every T from 1 to 1000: finite, equal to (8) and (9), and the noise adds up."""
    sigma_t = np.concatenate([np.arange(T, 0, -1) / T for T in range(1, 1001)]).astype(np.float32)
    sigma_s = np.concatenate([np.arange(T - 1, -1, -1) / T for T in range(1, 1001)])
    sigma_s = sigma_s.astype(np.float32)
    result = jax.jit(samplers.move_coefficients)(sigma_t, sigma_s, eta)
    assert all(np.isfinite(coefficient).all() for coefficient in result)
    assert all((np.asarray(coefficient) >= 0).all() for coefficient in result)
    expected = paper_coefficients(np.float64(sigma_t), np.float64(sigma_s), eta)
    for coefficient, exact in zip(result, expected, strict=True):
        np.testing.assert_allclose(coefficient, exact, rtol=3e-6, atol=3e-8)
    _, beta_prime, delta = np.asarray(result, np.float64)
    beta_s = np.sin(np.pi / 2 * np.float64(sigma_s))
    np.testing.assert_allclose(beta_prime**2 + delta**2, beta_s**2, rtol=2e-6, atol=0)
    is_first, is_last = sigma_t == 1, sigma_s == 0
    np.testing.assert_allclose(delta[is_first], eta * beta_s[is_first], rtol=1e-6)
    np.testing.assert_array_equal(beta_prime[is_last], 0)
    np.testing.assert_array_equal(delta[is_last], 0)


SAMPLERS = {"ddim": samplers.ddim, "ab2": samplers.adams_bashforth_2}


@pytest.mark.parametrize(
    ("num_steps", "eta", "below", "above"),
    [(20, 0.4, 0.25, 1.22), (50, 0.2, 0.62, 1.11), (50, 0.4, 0.14, 1.25), (100, 0.4, 0.09, 1.27)],
)
def test_the_filter_anneals_the_band_below_its_corner(num_steps, eta, below, above):
    """The noise energy at the last call over that of equation (1); docs/method.md has the table."""
    length, rate, corner_hz = 2**14, 44_100, 5_000.0

    def velocity(x, sigma):
        """A perfect network's for silent vocals; at the last call 0, for x0_hat = alpha x."""
        alpha, beta = diffusion.alpha_beta(sigma)
        return jnp.where(sigma < 1.5 / num_steps, 0.0, alpha / beta) * x

    def noise(step):
        return jax.random.normal(jax.random.fold_in(KEY, step), (1, length, 2))

    result = samplers.ddim(
        velocity,
        noise(num_steps),
        steps=num_steps,
        eta=eta,
        cutoff_hz=corner_hz,
        noise_fn=noise,
        sample_rate=rate,
    )
    alpha, beta = np.cos(np.pi / 2 / num_steps), np.sin(np.pi / 2 / num_steps)
    last = np.asarray(result[0]) / alpha / beta
    energy = np.square(np.abs(np.fft.rfft(last, axis=0))).mean(1) / length
    hertz = np.fft.rfftfreq(length, 1 / rate)
    assert energy[hertz < 0.5 * corner_hz].mean() == pytest.approx(below, rel=0.1)
    assert energy[hertz > 1.5 * corner_hz].mean() == pytest.approx(above, rel=0.03)


def gaussian_error(sampler, start_sigma, num_steps):
    """RMS distance from the exact end of the flow, at eta = 0.

    Of a Gaussian target the flow keeps z = (x - alpha mu) / sqrt(alpha^2 s^2 + beta^2).
    """
    z = jax.random.normal(KEY, SHAPE)
    alpha, beta = diffusion.alpha_beta(start_sigma)
    x = alpha * target_mean() + jnp.sqrt(alpha**2 * SCALE**2 + beta**2) * z
    end = sampler(gaussian_velocity, x, steps=num_steps, start_sigma=start_sigma)
    return jnp.sqrt(jnp.mean((end - target_mean() - SCALE * z) ** 2))


@pytest.mark.parametrize("start_sigma", [0.5, 1.0])
def test_orders_of_convergence(start_sigma):
    """ddim's error falls as 1/T, adams_bashforth_2's as 1/T^2 or faster, until rounding shows."""
    first, second = (
        [float(error(start_sigma, num_steps)) for num_steps in (8, 32, 128)]
        for error in (jax.jit(functools.partial(gaussian_error, s)) for s in SAMPLERS.values())
    )
    assert first[0] / first[1] == pytest.approx(4, abs=0.3)
    assert first[1] / first[2] == pytest.approx(4, abs=0.1)
    assert second[0] / second[1] > 16
    assert second[1] / second[2] > 16
    assert second[0] < first[0] / 1.8


@pytest.mark.parametrize("schedule", [1.0, 3.0])
@pytest.mark.parametrize("start_sigma", [1.0, 0.7])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 17])
def test_the_second_order_by_turning_vectors_in_float64(num_steps, start_sigma, schedule):
    """x = alpha x0 + beta eps is turned about x0_hat, half a step ahead by the last two calls."""
    start = jax.random.normal(KEY, (2, 101, 2))
    x, last = np.asarray(start, np.float64), None
    grid = start_sigma * np.linspace(1, 0, num_steps + 1) ** schedule
    for i in range(num_steps):
        alpha, beta = (f(np.pi / 2 * grid[i : i + 2]) for f in (np.cos, np.sin))
        v = np.tanh(x) * (1 - grid[i]) - 0.5 * np.roll(x, 1, axis=1)
        x0_hat = alpha[0] * x - beta[0] * v
        ahead = x0_hat if last is None or i == num_steps - 1 else 1.5 * x0_hat - 0.5 * last
        noise_hat = (x - alpha[0] * ahead) / beta[0]
        x, last = alpha[1] * ahead + beta[1] * noise_hat, x0_hat
    result = samplers.adams_bashforth_2(
        contraction, start, steps=num_steps, start_sigma=start_sigma, schedule=schedule
    )
    np.testing.assert_allclose(result, x, atol=2e-5)


# Share of the deviation e of a Gaussian posterior that is left, with the exact denoiser; computed
# apart from this project.
SHARES = {
    ("ddim", 5, 1): {0.5: 0.73, 0.3: 0.62, 0.1: 0.29, 0.05: 0.15, 0.02: 0.06},
    ("ddim", 10, 1): {0.5: 0.86, 0.3: 0.80, 0.1: 0.51, 0.05: 0.30, 0.02: 0.12},
    ("ddim", 20, 1): {0.5: 0.93, 0.3: 0.89, 0.1: 0.72, 0.05: 0.51, 0.02: 0.24},
    ("ddim", 5, 2): {0.5: 0.76, 0.3: 0.74, 0.1: 0.66, 0.05: 0.55, 0.02: 0.29},
    ("ddim", 10, 2): {0.5: 0.87, 0.3: 0.86, 0.1: 0.80, 0.05: 0.74, 0.02: 0.64},
    ("ddim", 4, 3): {0.5: 0.65, 0.3: 0.66, 0.1: 0.59, 0.05: 0.57, 0.02: 0.53},
    ("ddim", 10, 3): {0.5: 0.84, 0.3: 0.85, 0.1: 0.82, 0.05: 0.78, 0.02: 0.72},
    ("ddim", 20, 3): {0.5: 0.92, 0.3: 0.92, 0.1: 0.90, 0.05: 0.88, 0.02: 0.85},
    ("ab2", 4, 3): {0.5: 0.94, 0.3: 0.92, 0.1: 0.73, 0.05: 0.64, 0.02: 0.54},
    ("ab2", 8, 3): {0.5: 1.03, 0.3: 1.04, 0.1: 1.01, 0.05: 0.96, 0.02: 0.83},
}


@pytest.mark.parametrize(("sampler", "num_steps", "schedule"), SHARES)
def test_the_share_of_a_gaussian_s_deviation(sampler, num_steps, schedule):
    """The flow is linear: from noise of 1 the samplers return the share times e."""
    shares = SHARES[sampler, num_steps, schedule]
    deviation = jnp.array(list(shares))[None, :, None]

    def velocity(x, sigma):
        alpha, beta = diffusion.alpha_beta(sigma)
        surprise = x / (alpha**2 * deviation**2 + beta**2)
        return diffusion.velocity(alpha * deviation**2 * surprise, beta * surprise, sigma)

    end = SAMPLERS[sampler](velocity, jnp.ones_like(deviation), steps=num_steps, schedule=schedule)
    np.testing.assert_allclose((end / deviation)[0, :, 0], list(shares.values()), atol=0.0051)


@pytest.mark.parametrize("eta", ETAS)
def test_a_guess_that_is_a_sample_ends_in_the_target_s_distribution(eta):
    """Noise to a level and back changes the draw, not what it is drawn from."""
    draws = jax.random.normal(jax.random.key(5), SHAPE)
    guess = target_mean() + SCALE * draws
    noisy = diffusion.diffuse(guess, jax.random.normal(KEY, SHAPE), 0.5)
    settings = {"steps": 500, "eta": eta, "start_sigma": 0.5, "noise_fn": white(SHAPE)}
    end = jax.jit(lambda x: samplers.ddim(gaussian_velocity, x, **settings))(noisy)
    deviation = (end - target_mean()) / SCALE
    assert np.mean(deviation**2) == pytest.approx(1, rel=0.01 + 5 * np.sqrt(2 / np.prod(SHAPE)))
    assert 0.1 < np.mean(deviation * draws) < 0.7  # and it remembers the guess


def contraction(x, sigma):
    """A network that is neither ideal nor linear, and depends on sigma."""
    return jnp.tanh(x) * (1 - sigma) - 0.5 * jnp.roll(x, 1, axis=1)


@jax.jit
def sample_contraction(start, num_steps, eta, cutoff_hz, schedule):
    settings = {"steps": num_steps, "eta": eta, "cutoff_hz": cutoff_hz, "schedule": schedule}
    fresh = white(start.shape)
    return samplers.ddim(contraction, start, noise_fn=fresh, sample_rate=SAMPLE_RATE, **settings)


@pytest.mark.parametrize("num_steps", [1, 3, 17])
@pytest.mark.parametrize(
    ("eta", "cutoff_hz", "schedule"),
    [(0.0, 0.0, 1.0), (0.0, 0.0, 3.0), (0.4, 0.0, 1.0), (0.4, 3000.0, 3.0), (1.0, 9.0, 1.0)],
)
def test_equations_as_printed_in_float64(num_steps, eta, cutoff_hz, schedule):
    start = jax.random.normal(KEY, (2, 101, 2))
    gain = butterworth_gain(cutoff_hz, 101)[None, :, None]
    x = np.asarray(start, np.float64)
    grid = np.linspace(1, 0, num_steps + 1) ** schedule
    for step in range(num_steps):
        alpha, beta = np.cos(np.pi / 2 * grid[step]), np.sin(np.pi / 2 * grid[step])
        v = np.tanh(x) * (1 - grid[step]) - 0.5 * np.roll(x, 1, axis=1)
        alpha_s, beta_prime, delta = paper_coefficients(grid[step], grid[step + 1], eta)
        fresh = white(start.shape)(step)
        filtered = np.fft.ifft(np.fft.fft(fresh, axis=1) * gain, axis=1).real
        x = alpha_s * (alpha * x - beta * v) + beta_prime * (beta * x + alpha * v)
        x += delta * filtered
    result = sample_contraction(start, num_steps, eta, cutoff_hz, schedule)
    np.testing.assert_allclose(result, x, atol=2e-5)


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_the_network_sees_the_levels_of_the_schedule(sampler):
    sigmas = []

    def velocity(x, sigma):
        jax.debug.callback(lambda s: sigmas.append(float(s)), sigma, ordered=True)
        return contraction(x, sigma)

    @jax.jit
    def run(num_steps, start_sigma, schedule):
        start, grid = jnp.ones((1, 8, 1)), {"start_sigma": start_sigma, "schedule": schedule}
        return sampler(velocity, start, steps=num_steps, **grid)

    cases = [(7, 1.0, 1.0), (7, 0.3, 1.0), (1, 0.5, 3.0), (7, 1.0, 2.5)]
    for num_steps, start_sigma, schedule in cases:
        sigmas.clear()
        run(num_steps, start_sigma, schedule).block_until_ready()
        jax.effects_barrier()
        expected = start_sigma * (np.arange(num_steps, 0, -1) / num_steps) ** schedule
        np.testing.assert_allclose(sigmas, expected, rtol=3e-7 if schedule == 1 else 3e-6)
    assert run._cache_size() == 1


def test_the_last_move_takes_no_noise_and_plain_ddim_pays_for_none():
    steps = []

    def noise_fn(step):
        jax.debug.callback(lambda s: steps.append(int(s)), step)
        return jnp.zeros((1, 8, 1))

    for eta, expected in ((0.4, [0, 1, 2, 3, 4, 5]), (0.0, [])):
        steps.clear()
        samplers.ddim(contraction, jnp.ones((1, 8, 1)), steps=7, eta=eta, noise_fn=noise_fn)
        jax.effects_barrier()
        assert sorted(steps) == expected


@pytest.mark.parametrize(("sampler", "num_states"), [("ddim", 1), ("ab2", 2)])
def test_the_loop_carries_x_and_of_second_order_the_last_estimate(sampler, num_states):
    start = jnp.zeros((1, 16, 2))
    settings = {"eta": 0.4, "noise_fn": white(start.shape)} if sampler == "ddim" else {}
    jaxpr = jax.make_jaxpr(
        lambda num_steps: SAMPLERS[sampler](contraction, start, steps=num_steps, **settings)
    )(3)
    (loop,) = [equation for equation in jaxpr.eqns if equation.primitive.name == "while"]
    carried = [variable.aval.shape for variable in loop.outvars]
    assert carried == [(), (), *[start.shape] * num_states]  # after the counter and its limit


@pytest.mark.parametrize("noise_dtype", [jnp.float32, jnp.bfloat16])
def test_state_is_float32_for_a_bfloat16_network(noise_dtype):
    seen = []

    def network(x, sigma):
        seen.extend([x.dtype, sigma.dtype])
        return contraction(x.astype(jnp.bfloat16), sigma.astype(jnp.bfloat16))

    start = jax.random.normal(KEY, (1, 16, 2)).astype(noise_dtype)
    fresh = white(start.shape)
    result = samplers.ddim(network, start, steps=4, eta=0.4, cutoff_hz=100.0, noise_fn=fresh)
    assert result.dtype == jnp.float32
    assert set(seen) == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "steps is 0; expected 1 to 1000000"),
        ({"steps": 2.5}, "steps is 2.5; expected a whole number"),
        ({"eta": 1.5}, "eta is 1.5; expected 0 to 1"),
        ({"eta": float("nan")}, "eta is nan"),
        ({"eta": 0.4}, "noise_fn is None and eta is 0.4; expected a noise_fn, or an eta of 0"),
        ({"cutoff_hz": -1.0}, "cutoff_hz is -1.0"),
        ({"cutoff_hz": 8000.0}, "cutoff_hz is 8000.0; expected less than 8000"),
        ({"start_sigma": 0.0}, "start_sigma is 0.0; expected 1e-06 to 1"),
        ({"schedule": float("nan")}, "schedule is nan; expected 0.1 to 8"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    # Without the shape checks of the test suite, which a user does not have either.
    ddim = inspect.unwrap(samplers.ddim)
    settings = {"steps": 4, "eta": 0.4, "cutoff_hz": 100.0, **setting}
    with pytest.raises(UserError, match=message):
        ddim(contraction, jnp.ones((1, 8, 2)), sample_rate=SAMPLE_RATE, **settings)
    if setting.keys() <= {"steps", "start_sigma", "schedule"}:
        second_order = inspect.unwrap(samplers.adams_bashforth_2)
        with pytest.raises(UserError, match=message):
            second_order(contraction, jnp.ones((1, 8, 2)), **{"steps": 4} | setting)


def test_the_sampler_in_the_docs_is_of_first_order():
    text = (Path(__file__).parents[1] / "docs" / "extend.md").read_text()
    code = re.search(r"import jax\n.*?(?=\n\nseparator = )", text, re.DOTALL)[0]
    names = {}
    exec(code, names)
    with jax.numpy_dtype_promotion("standard"):
        error = jax.jit(functools.partial(gaussian_error, names["euler"]))
        errors = [float(error(1.0, num_steps)) for num_steps in (32, 128)]
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.4)


def halve_noise(velocity_fn, noise, *, start_sigma, weight=0.5):
    return weight * noise * start_sigma


@pytest.fixture
def registry(monkeypatch):
    """Samplers that a test adds go again."""
    monkeypatch.setattr(samplers, "SAMPLERS", dict(samplers.SAMPLERS))


def test_a_registered_sampler_is_found_and_gets_what_it_takes(registry):
    added = samplers.register_sampler("halve", halve_noise, help="for tests")
    assert samplers.find_sampler("halve") is added
    assert added.uses == {"start_sigma"} | samplers.DRAW_SETTINGS.keys()
    values = {"start_sigma": jnp.float32(0.5), "steps": jnp.int32(3)}
    noise = jnp.ones((1, 8, 2))
    result = added(contraction, noise, values, noise_fn=white(noise.shape), sample_rate=SAMPLE_RATE)
    np.testing.assert_array_equal(result, 0.25 * noise)
    with pytest.raises(UserError, match="sampler is halve; expected a name that is not taken"):
        samplers.register_sampler("halve", halve_noise, help="again")


def test_a_function_with_other_parameters_is_no_sampler():
    def other(velocity_fn, noise, *, steps, speed): ...

    with pytest.raises(UserError, match="sampler other has the parameters speed; expected, after"):
        samplers.find_sampler(other)
    with pytest.raises(UserError, match="sampler is euler; expected one of ddim, ab2, direct"):
        samplers.find_sampler("euler")
