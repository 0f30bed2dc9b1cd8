// One of a card's sounds is shown at a time, and the next goes on where the one before it was.
function switchSounds(card) {
  const sounds = [...card.querySelectorAll('figure')];
  const players = sounds.map(sound => sound.querySelector('audio'));
  const bar = document.createElement('div');
  bar.className = 'switch';
  let current = 0;
  const show = next => {
    const [from, to] = [players[current], players[next]];
    if (next !== current) {
      const playing = !from.paused && !from.ended;
      from.pause();
      to.currentTime = from.currentTime;
      if (playing) to.play();
    }
    current = next;
    sounds.forEach((sound, i) => { sound.hidden = i !== next; });
    [...bar.children].forEach((button, i) => button.setAttribute('aria-pressed', i === next));
  };
  sounds.forEach((sound, i) => {
    const button = document.createElement('button');
    button.textContent = sound.querySelector('figcaption').textContent;
    button.onclick = () => show(i);
    bar.append(button);
  });
  card.prepend(bar);
  card.classList.add('switched');
  show(0);
}
document.addEventListener('play', event => {
  for (const player of document.querySelectorAll('audio'))
    if (player !== event.target) player.pause();
}, true);
