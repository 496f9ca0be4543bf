"""Operations on batches of pictures that draw at random face by face, on any device."""
